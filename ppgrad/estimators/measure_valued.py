"""Measure-valued gradient: the difference of two expectations for each scalar parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Exponential,
    Gamma,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
)

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.arguments import flag
from ppgrad.core.distributions import distribution_name, element, sampled
from ppgrad.estimators._measure_valued.discrete import bernoulli_pairs, categorical_pairs, poisson_pairs
from ppgrad.estimators._measure_valued.gamma import learned_concentration, rate_pairs
from ppgrad.estimators._measure_valued.normal import multivariate_normal_pairs, normal_pairs
from ppgrad.estimators._measure_valued.pair import Pair
from ppgrad.estimators.discrete.contrast import contrast, with_weights

_PAIRS: dict[type[Distribution], Callable[[TorchDistribution, Tensor, bool], list[Pair]]] = {
    Normal: normal_pairs,
    MultivariateNormal: multivariate_normal_pairs,
    Bernoulli: bernoulli_pairs,
    Categorical: categorical_pairs,
    OneHotCategorical: categorical_pairs,
    Poisson: poisson_pairs,
    Exponential: rate_pairs,
    Gamma: rate_pairs,
}


@dataclass(frozen=True)
class MeasureValued(Estimator):
    """∂_θ E[f] = c_θ (E[f(x⁺)] − E[f(x⁻)]), also known as the weak derivative.

    With x the value drawn, R ~ Rayleigh(1), M ~ double-sided Maxwell, U uniform, E ~ Exponential(1):

    | parameter | c | x⁺ | x⁻ | branches |
    | --- | --- | --- | --- | --- |
    | Normal loc | 1 / (σ√2π) | μ + σR | μ − σR | 2 |
    | Normal scale | 1 / σ | μ + σM | μ + σMU, or a Normal of its own | 2 |
    | MultivariateNormal loc and scale_tril | | the same in each coordinate of ε, x = m + Lε | | 4d |
    | Bernoulli p | 1 | 1 | 0 | 1 |
    | Categorical log p_k | p_k | k | x, or a draw of its own | n − 1, or 2n |
    | Poisson rate | 1 | x + 1 | x | 1 |
    | Exponential rate | 1 / λ | x | x + E/λ, which is Erlang(2) | 1 |
    | Gamma rate | a / λ | x | x + E/λ, which is Gamma(a + 1, λ) | 1 |

    Elements that a later cost couples take turns, so the cost adds up; elements of a plate share.
    Jumps of f are no obstacle. Coupled, a Categorical is the same as `LocalExpectation`.

    Args:
        coupled: x⁻ shares the noise of x⁺. It makes no difference to a Bernoulli, whose pair is 1 and 0.

    Needs elements of a distribution of the table. A Gamma whose concentration is learned is
    refused, since the weak derivative in it has no closed form.

    Source: Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning, section 6,
    table 1; Heidergott & Vázquez-Abad (2000).
    """

    facts: ClassVar[Facts] = Facts(source="Mohamed et al. (2020), Monte Carlo Gradient Estimation, section 6")
    needs: ClassVar[Needs] = Needs(alternatives=True, element_by_element=True)

    coupled: bool = True

    def __post_init__(self) -> None:
        flag(type(self).__name__, "coupled", self.coupled)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(coupled=False))

    def refuses(self, site: SiteInfo) -> str | None:
        if not isinstance(element(site.fn), tuple(_PAIRS)):
            *names, last = [kind.__name__ for kind in _PAIRS]
            return f"{distribution_name(site.fn)} is neither {', '.join(names)} nor {last}"
        return learned_concentration(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        value = sampled(fn)
        pairs = next(pairs for kind, pairs in _PAIRS.items() if isinstance(element(fn), kind))
        weights, alternatives = [], []
        for weight, plus, minus in pairs(fn, value, self.coupled):
            for signed, other in ((weight, plus), (-weight, minus)):
                if other is not None:
                    weights.append(signed)
                    alternatives.append(other)
        if not alternatives:
            return Sample(value)
        return Sample(value, with_weights(weights), torch.stack(alternatives))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return contrast(draw, signal)
