"""DisARM: the antithetic pair of ARM with its noise integrated out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Sample, Signal, SiteInfo
from ppgrad.core.discrete import for_event, logits, not_bernoulli, over_event, uniform


@dataclass(frozen=True)
class DisARM(Estimator):
    """½ (f(b) − f(b̃)) (−1)^b̃ 1[b ≠ b̃] σ(|φ|), with b = 1[1 − u < p] and b̃ = 1[u < p].

    Also known as U2G. The antithetic sample b̃ is one branch, whatever the number of elements.

    Needs Bernoulli elements.

    Source: Dong, Mnih & Tucker (2020), DisARM: an antithetic gradient estimator for binary latent
    variables, eq. 5; Yin et al. (2020).
    """

    facts: ClassVar[Facts] = Facts(source="Dong, Mnih & Tucker (2020), DisARM, eq. 5")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return not_bernoulli(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        phi, u = logits(fn), uniform(fn)
        p = torch.sigmoid(phi.detach())
        value, antithetic = (1 - u < p).to(phi.dtype), (u < p).to(phi.dtype)
        return Sample(value, {"logits": phi, "antithetic": antithetic}, antithetic.unsqueeze(0))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        phi, antithetic = draw.extras["logits"], draw.extras["antithetic"]
        difference = for_event(signal.value - signal.alternatives[0], draw.event_dim)
        differ = (draw.value != antithetic).to(phi.dtype)
        sign = 1 - 2 * antithetic
        weight = 0.5 * sign * differ * torch.sigmoid(phi.detach().abs())
        return over_event(phi * weight * difference, draw.event_dim)
