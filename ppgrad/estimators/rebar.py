"""REBAR: a score function whose control variate is the same program, relaxed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo, sum_lane
from ppgrad.core.arguments import finite, positive
from ppgrad.estimators.discrete.relaxation import (
    as_value,
    category_logits,
    exponential_noise,
    not_relaxable,
    one_hot_argmax,
    perturbed,
    perturbed_given,
)


@dataclass(frozen=True)
class REBAR(Estimator):
    """[f(b) − η c(z̃)] ∇log p(b) + η ∇c(z) − η ∇c(z̃), with c the program run with a relaxed value.

    z are the Gumbel-perturbed logits, b their argmax, z̃ is z drawn again given b, and c(z) is the
    cost of the program at softmax(z / temperature). Two branches, whatever the number of elements. The
    gradient of a relaxed branch runs through everything downstream, scores of later sites included.

    Args:
        temperature: of the relaxation, > 0.
        eta: weight of the control variate; any number leaves the estimate unbiased.

    Needs Bernoulli or OneHotCategorical elements, and a program that takes the values between in
    their place and whose cost is continuous in them: one that rounds them, compares them with a
    threshold or indexes with them (``table[b.long()]``) has no slope there to differentiate, and is
    refused. The first run looks for jumps of more than a ten-thousandth of the cost's range on up to three
    lines through the values of the site, all other draws held; it cannot see those of other places.

    Under an objective in which runs share one number (`IWELBO`, `CVaR`, `EntropicRisk`, …) a site with a
    later site that has a score is refused, too: there a relaxed cost cannot pass on a later score.

    Source: Tucker et al. (2017), REBAR: low-variance, unbiased gradient estimates for discrete
    latent variable models, eq. 5.
    """

    facts: ClassVar[Facts] = Facts(
        source="Tucker et al. (2017), REBAR, eq. 5",
        assumes="the cost does not jump between values",
    )
    needs: ClassVar[Needs] = Needs(alternatives=True, relaxed=True)

    temperature: float = 0.5
    eta: float = 1.0

    def __post_init__(self) -> None:
        positive(type(self).__name__, "temperature", self.temperature, 0.5)
        finite(type(self).__name__, "eta", self.eta, 1.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(temperature=1.0, eta=0.7))

    def refuses(self, site: SiteInfo) -> str | None:
        return not_relaxable(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        logits = category_logits(fn)
        z = perturbed(logits, exponential_noise(logits))
        drawn = one_hot_argmax(z.detach())
        conditional = perturbed_given(logits, drawn, exponential_noise(logits))
        relaxed = torch.softmax(torch.stack([z, conditional]) / self.temperature, -1)
        return Sample(as_value(fn, drawn), {}, torch.stack([as_value(fn, weights) for weights in relaxed]))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        score = draw.log_prob * (signal.value - self.eta * signal.alternatives[1])
        relaxed, conditional = signal.relaxed
        # Every element has a score of its own; the relaxed costs count once for each lane.
        return sum_lane(score) + self.eta * (relaxed - conditional)
