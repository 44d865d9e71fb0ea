"""Local expectation gradient: sum over one element's values, the rest of the sample held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Sample, Signal, SiteInfo
from ppgrad.core.discrete import log_probabilities, not_finite, over_event, support


@dataclass(frozen=True)
class LocalExpectation(Estimator):
    """Σ_v ∇p(v) f(v, x_rest): every other value of an element is a branch.

    It is also known as IndeCateR. The value drawn is one term of the sum, so that an element of n
    values takes n − 1 branches; they add up over sites, where `Enumerate` multiplies. Elements of
    a plate share branches; elements that a later cost couples take turns.

    Needs Bernoulli or Categorical elements.

    Source: Titsias & Lázaro-Gredilla (2015), Local expectation gradients, eq. 8;
    De Smet et al. (2023), Differentiable sampling of categorical distributions, eq. 6.
    """

    facts: ClassVar[Facts] = Facts(source="Titsias & Lázaro-Gredilla (2015), Local Expectation Gradients, eq. 8")
    element_by_element: ClassVar[bool] = True

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return not_finite(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        value = fn.sample().detach()
        values = support(fn)
        count = len(values)
        others = (value.long() + torch.arange(1, count).reshape(-1, *[1] * value.dim())) % count
        log_probs = log_probabilities(fn)
        extras = {"drawn": log_probs.gather(0, value.long().unsqueeze(0)).squeeze(0)}
        extras |= {f"other_{i}": log_probs.gather(0, other.unsqueeze(0)).squeeze(0) for i, other in enumerate(others)}
        return Sample(value, extras, others.to(value.dtype))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        terms = draw.extras["drawn"].exp() * signal.base
        for i, cost in enumerate(signal.alternatives):
            terms = terms + draw.extras[f"other_{i}"].exp() * cost
        return over_event(terms, draw.event_dim)
