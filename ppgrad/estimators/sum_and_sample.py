"""Sum and sample: the likeliest values summed over, one of the rest sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.arguments import at_least
from ppgrad.core.distributions import over_event, sampled
from ppgrad.estimators.discrete.contrast import per_element
from ppgrad.estimators.discrete.elements import gumbel, index_of, log_probabilities, not_finite, possible_or, value_at


@dataclass(frozen=True)
class SumAndSample(Estimator):
    """Σ_{v∈C} ∇p(v) (f(v) − b) + P(C̄) ∇log p(t) (f(t) − b), t ~ p(· | C̄), with C the k likeliest values.

    The sum over C is exact, so that only the tail adds variance; b = Σ_{v∈C} p(v) f(v) / P(C) does
    not depend on t and leaves the mean alone. The value drawn is one of C, or t itself: k branches.
    With k of the number of values less one and more it is `LocalExpectation`.

    Elements that a later cost couples take turns, k branches each; elements of a plate share.

    Args:
        k: how many of the likeliest values are summed over, 1 or more.

    Needs Bernoulli, Categorical or OneHotCategorical elements, or Binomial ones of one total count.

    Raises:
        InvalidInput: k is below 1.

    Source: Liu et al. (2019), Rao-Blackwellized stochastic gradients for discrete distributions, section 3.
    """

    facts: ClassVar[Facts] = Facts(
        source="Liu et al. (2019), Rao-Blackwellized Stochastic Gradients for Discrete Distributions, section 3"
    )
    needs: ClassVar[Needs] = Needs(alternatives=True, element_by_element=True)

    k: int = 1

    def __post_init__(self) -> None:
        at_least("SumAndSample", "k", self.k, 1)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(k=2))

    def refuses(self, site: SiteInfo) -> str | None:
        return not_finite(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        value = sampled(fn)
        drawn, log_probs = index_of(fn, value), log_probabilities(fn)
        k = min(self.k, len(log_probs) - 1)
        if k == 0:
            return Sample(value)
        log_p = log_probs.detach()
        top = log_p.topk(k, dim=0).indices
        outside = torch.ones_like(log_p).scatter(0, top, 0.0).log()
        other = (log_p + outside + gumbel(log_p)).argmax(0, keepdim=True)
        is_drawn = top == drawn
        tail = torch.where(is_drawn.any(0), other, drawn)
        extras = {
            "log_probs": log_probs.gather(0, torch.cat([top, tail])).movedim(0, -1),
            "is_drawn": is_drawn.movedim(0, -1),
            "tail": (log_p + outside).logsumexp(0).exp(),
        }
        # The branch of a value that was drawn anyway is the tail's.
        others = possible_or(torch.where(is_drawn, tail, top), drawn, log_p)
        return Sample(value, extras, value_at(fn, others))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        if not signal.has_alternatives:
            return None
        *top, last = draw.extras["log_probs"].unbind(-1)
        is_drawn, base = draw.extras["is_drawn"].unbind(-1), per_element(signal.base, last, draw.event_dim)
        alternatives = [per_element(cost, last, draw.event_dim) for cost in signal.alternatives]
        costs = [torch.where(own, base, cost) for own, cost in zip(is_drawn, alternatives, strict=True)]
        tail_cost = base
        for own, cost in zip(is_drawn, alternatives, strict=True):
            tail_cost = torch.where(own, cost, tail_cost)
        probs = torch.stack([log_p.exp() for log_p in top])
        weights = probs.detach()
        baseline = (weights * torch.stack(costs)).sum(0) / weights.sum(0)
        score = draw.extras["tail"] * last * (tail_cost - baseline)
        total = (probs * (torch.stack(costs) - baseline)).sum(0) + score
        return over_event(total, draw.event_dim)
