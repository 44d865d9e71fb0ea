"""Local expectation gradient: sum over one element's values, the rest of the sample held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.distributions import sampled
from ppgrad.estimators.discrete.contrast import contrast, with_weights
from ppgrad.estimators.discrete.elements import not_finite, other_values


@dataclass(frozen=True)
class LocalExpectation(Estimator):
    """Σ_v ∇p(v) f(v, x_rest): every other value of an element is a branch.

    It is also known as IndeCateR. The value drawn is one term of the sum, so that an element of n
    values takes n − 1 branches; they add up over sites, where `Enumerate` multiplies. Elements of
    a plate share branches; elements that a later cost couples take turns.

    Needs Bernoulli, Categorical or OneHotCategorical elements, or Binomial ones of one total count.

    Source: Titsias & Lázaro-Gredilla (2015), Local expectation gradients, eq. 8;
    De Smet et al. (2023), Differentiable sampling of categorical distributions, eq. 6.
    """

    facts: ClassVar[Facts] = Facts(source="Titsias & Lázaro-Gredilla (2015), Local Expectation Gradients, eq. 8")
    needs: ClassVar[Needs] = Needs(alternatives=True, element_by_element=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return not_finite(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        value = sampled(fn)
        others = other_values(fn, value)
        if not others:
            return Sample(value)
        return Sample(value, with_weights(p for p, _ in others), torch.stack([other for _, other in others]))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return contrast(draw, signal)
