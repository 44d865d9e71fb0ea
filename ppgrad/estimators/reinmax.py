"""ReinMax: straight-through to second order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution

from ppgrad.core import Estimator, Facts, Needs, Sample, SiteInfo
from ppgrad.core.arguments import positive
from ppgrad.estimators.discrete.relaxation import (
    as_value,
    category_logits,
    exponential_noise,
    not_relaxable,
    one_hot_argmax,
    perturbed,
)


@dataclass(frozen=True)
class ReinMax(Estimator):
    """∂b/∂θ := 2 J((π_τ + b)/2) − ½ J(π), J(π) = diag(π) − ππᵀ, π_τ = softmax(θ / temperature).

    Biased; exact for costs that are quadratic in the value at temperature 1 (Heun's method, where
    straight-through is Euler's).

    Args:
        temperature: above 0.

    Needs Bernoulli or OneHotCategorical elements, and a program that is differentiable in them.

    Source: Liu et al. (2023), Bridging discrete and backpropagation: straight-through and beyond,
    eq. 6 and algorithm 2.
    """

    facts: ClassVar[Facts] = Facts(
        source="Liu et al. (2023), Bridging Discrete and Backpropagation: Straight-Through and Beyond, eq. 6",
        biased=True,
        order="third order in the value",
        reparameterized=True,
    )
    needs: ClassVar[Needs] = Needs(outside_support=True)

    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive(type(self).__name__, "temperature", self.temperature, 1.0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return not_relaxable(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        logits = category_logits(fn)
        drawn = one_hot_argmax(perturbed(logits.detach(), exponential_noise(logits)))
        middle = ((torch.softmax(logits / self.temperature, -1) + drawn) / 2).detach()
        heun = torch.softmax(middle.log() + (logits - logits.detach()), -1)
        path = 2 * heun - 0.5 * logits.exp()
        return Sample(as_value(fn, drawn + (path - path.detach())))
