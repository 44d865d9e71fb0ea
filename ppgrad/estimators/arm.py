"""ARM: augment, reinforce, merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Sample, Signal, SiteInfo
from ppgrad.core.discrete import for_event, logits, not_bernoulli, over_event, uniform


@dataclass(frozen=True)
class ARM(Estimator):
    """(f(1[u > σ(−φ)]) − f(1[u < σ(φ)])) (u − ½).

    One branch, the antithetic sample. `DisARM` integrates u out and is never worse.

    Needs Bernoulli elements.

    Source: Yin & Zhou (2019), ARM: augment-REINFORCE-merge gradient for stochastic binary networks, eq. 4.
    """

    facts: ClassVar[Facts] = Facts(source="Yin & Zhou (2019), ARM: Augment-REINFORCE-Merge, eq. 4")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return not_bernoulli(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        phi, u = logits(fn), uniform(fn)
        p = torch.sigmoid(phi.detach())
        value, antithetic = (1 - u < p).to(phi.dtype), (u < p).to(phi.dtype)
        return Sample(value, {"logits": phi, "centred": u - 0.5}, antithetic.unsqueeze(0))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        difference = for_event(signal.value - signal.alternatives[0], draw.event_dim)
        return over_event(draw.extras["logits"] * draw.extras["centred"] * difference, draw.event_dim)
