"""MuProp: a score function with the program's expansion at the mean as control variate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.distributions import over_event, sampled, without_mask
from ppgrad.core.edges import cut_off
from ppgrad.estimators.discrete.elements import no_mean


@dataclass(frozen=True)
class MuProp(Estimator):
    """[f(x) − h(x)] ∇log p(x) + f′(m)ᵀ ∇m, with h(x) = f(m) + f′(m)ᵀ(x − m) and m the mean.

    One branch, the program at the mean, differentiated with respect to the value. The last term is
    what the control variate h takes away in expectation; without it the estimate is biased.

    Needs a distribution with a mean, and a program that takes it as a value.

    Source: Gu, Levine, Sutskever & Mnih (2016), MuProp: unbiased backpropagation for stochastic neural
    networks, eq. 8.
    """

    facts: ClassVar[Facts] = Facts(source="Gu et al. (2016), MuProp: Unbiased Backpropagation, eq. 8")
    needs: ClassVar[Needs] = Needs(alternatives=True, slopes=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return no_mean(site.fn) or cut_off(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        mean = without_mask(fn).mean
        return Sample(sampled(fn), {"mean": mean}, mean.detach().unsqueeze(0))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        mean, slope = draw.extras["mean"], signal.gradients[0]
        linear = over_event(slope * (draw.value - mean.detach()), draw.event_dim)
        score = draw.log_prob * (signal.value - signal.alternatives[0] - linear)
        return score + over_event(slope * mean, draw.event_dim)
