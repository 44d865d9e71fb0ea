"""REBAR: a score function whose control variate is the same program, relaxed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, InvalidInput, Memory, Sample, Signal, SiteInfo, sum_lane
from ppgrad.core.discrete import logits, not_bernoulli, uniform


@dataclass(frozen=True)
class REBAR(Estimator):
    """[f(b) − η c(z̃)] ∇log p(b) + η ∇c(z) − η ∇c(z̃), with c the program run with a relaxed value.

    z = φ + logit(u) is the noisy logit, b = 1[z > 0], z̃ is z drawn again given b, and c(z) is the
    cost of the program at σ(z / temperature). Two branches, whatever the number of elements. The
    gradient of a relaxed branch runs through everything downstream, scores of later sites included.

    Args:
        temperature: of the relaxation, > 0.
        eta: weight of the control variate; any number leaves the estimate unbiased.

    Needs Bernoulli elements, and a program that takes values between 0 and 1 in their place. One
    that indexes with them (``table[b]``) fails in the branch; give that site `DisARM()` instead.

    Source: Tucker et al. (2017), REBAR: low-variance, unbiased gradient estimates for discrete
    latent variable models, eq. 5.
    """

    facts: ClassVar[Facts] = Facts(source="Tucker et al. (2017), REBAR, eq. 5")
    has_alternatives: ClassVar[bool] = True
    relaxes: ClassVar[bool] = True

    temperature: float = 0.5
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InvalidInput(f"REBAR(temperature={self.temperature}): the temperature is above 0. Write REBAR(0.5).")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(temperature=1.0, eta=0.7))

    def refuses(self, site: SiteInfo) -> str | None:
        return not_bernoulli(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        phi = logits(fn)
        u, v = uniform(phi), uniform(phi)
        z = phi + torch.logit(u)
        value = (z > 0).to(phi.dtype).detach()
        p = torch.sigmoid(phi)
        again = torch.where(value > 0, 1 - p + v * p, v * (1 - p))
        eps = torch.finfo(phi.dtype).eps
        conditional = phi + torch.logit(again.clamp(eps, 1 - eps))
        relaxed = torch.sigmoid(torch.stack([z, conditional]) / self.temperature)
        return Sample(value, {}, relaxed)

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        score = draw.log_prob * (signal.value - self.eta * signal.alternatives[1])
        relaxed, conditional = signal.relaxed
        # Every element has a score of its own; the relaxed costs count once for each lane.
        return sum_lane(score) + self.eta * (relaxed - conditional)
