"""Straight-through: a discrete value with the gradient of its mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pyro.distributions import TorchDistribution

from ppgrad.core import Estimator, Facts, Needs, Sample, SiteInfo
from ppgrad.estimators.discrete.relaxation import (
    as_value,
    category_logits,
    exponential_noise,
    not_relaxable,
    one_hot_argmax,
    perturbed,
)


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """∂b/∂θ := ∂E[b]/∂θ: the value is drawn, its gradient is that of the probabilities.

    Biased, unless the cost is linear in the value.

    Needs Bernoulli or OneHotCategorical elements, and a program that is differentiable in them.

    Source: Bengio, Léonard & Courville (2013), Estimating or propagating gradients through
    stochastic neurons, section 4.
    """

    facts: ClassVar[Facts] = Facts(
        source="Bengio, Léonard & Courville (2013), Estimating or Propagating Gradients, section 4",
        biased=True,
        order="none: it vanishes for linear costs only",
        reparameterized=True,
    )
    needs: ClassVar[Needs] = Needs(outside_support=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return not_relaxable(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        logits = category_logits(fn)
        mean = logits.exp()
        drawn = one_hot_argmax(perturbed(logits.detach(), exponential_noise(logits)))
        return Sample(as_value(fn, drawn + (mean - mean.detach())))
