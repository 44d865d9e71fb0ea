"""Double control variates: leave-one-out, sharpened by the gradients of the other samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.arguments import finite
from ppgrad.core.distributions import over_event, sampled, without_mask
from ppgrad.core.edges import cut_off
from ppgrad.estimators.discrete.elements import mean_of_others, needs_particles, no_mean


@dataclass(frozen=True)
class DoubleControlVariate(Estimator):
    """[f_k − a_k(x_k) − Σ_{j≠k} (f_j − a_k(x_j)) / (K−1)] ∇log p(x_k) + ∇E[a_k], a_k(x) = η g_kᵀ(x − m).

    g_k is the mean of ∇f over the particles other than k, m the mean of x, so that ∇E[a_k] =
    η g_kᵀ∇m is known. One branch, the program as drawn, differentiated with respect to the value.

    Args:
        eta: η; any number leaves the estimate unbiased, 0 is leave-one-out.

    Needs two particles, a distribution with a mean, and a program that is differentiable in its value.

    Source: Titsias & Shi (2022), Double control variates for gradient estimation in discrete latent
    variable models, section 3.
    """

    facts: ClassVar[Facts] = Facts(source="Titsias & Shi (2022), Double Control Variates for Gradient Estimation, s. 3")
    needs: ClassVar[Needs] = Needs(alternatives=True, slopes=True)

    eta: float = 1.0

    def __post_init__(self) -> None:
        finite(type(self).__name__, "eta", self.eta, 1.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return needs_particles(site, type(self).__name__) or no_mean(site.fn) or cut_off(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        value = sampled(fn)
        return Sample(value, {"mean": without_mask(fn).mean}, value.unsqueeze(0))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        mean = draw.extras["mean"]
        slope = self.eta * mean_of_others(signal.gradients[0])
        away = draw.value - mean.detach()
        advantage = signal.value - mean_of_others(signal.value)
        advantage = advantage - over_event(slope * (away - mean_of_others(away)), draw.event_dim)
        return draw.log_prob * advantage + over_event(slope * mean, draw.event_dim)
