"""The unordered set estimator: values drawn without replacement, their order integrated out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.arguments import at_least, within
from ppgrad.core.distributions import over_event
from ppgrad.estimators.discrete.contrast import per_element
from ppgrad.estimators.discrete.elements import gumbel, log_probabilities, not_finite, possible_or, value_at

MOST = 8
"""The largest set: the sums that the weights need double with each further value."""


@dataclass(frozen=True)
class UnorderedSet(Estimator):
    """Σ_{s∈S} ∇p(s) R(S, s) (f(s) − Σ_{s'∈S} p(s') R^{D∖s}(S, s') f(s')), S drawn without replacement.

    R(S, s) = P(S | s first) / P(S) makes the estimate a function of the set alone, which is the
    score function with the order of the draws integrated out. The second sum is a baseline from
    the other values; R^{D∖s}(S, s) = 1. The largest of the Gumbel-perturbed log-probabilities is
    the value drawn, and the next k − 1 are branches. With k all values it is `LocalExpectation`.

    Elements that a later cost couples take turns, k − 1 branches each; elements of a plate share.

    Args:
        k: the size of the set, from 2 to 8.

    Needs Bernoulli, Categorical or OneHotCategorical elements, or Binomial ones of one total count.

    Raises:
        InvalidInput: k is out of range.

    Source: Kool, van Hoof & Welling (2020), Estimating gradients for discrete random variables by
    sampling without replacement, section 4.
    """

    facts: ClassVar[Facts] = Facts(
        source="Kool et al. (2020), Estimating Gradients for Discrete Random Variables by Sampling without "
        "Replacement, section 4"
    )
    needs: ClassVar[Needs] = Needs(alternatives=True, element_by_element=True)

    k: int = 2

    def __post_init__(self) -> None:
        at_least("UnorderedSet", "k", self.k, 2)
        within("UnorderedSet", "k", self.k, 2, MOST)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(k=3))

    def refuses(self, site: SiteInfo) -> str | None:
        return not_finite(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        log_probs = log_probabilities(fn)
        log_p = log_probs.detach()
        drawn = (log_p + gumbel(log_p)).topk(min(self.k, len(log_p)), dim=0).indices
        rest = (log_p + torch.ones_like(log_p).scatter(0, drawn, 0.0).log()).logsumexp(0)
        extras = {"log_probs": log_probs.gather(0, drawn).movedim(0, -1), "rest": rest}
        values = value_at(fn, possible_or(drawn, drawn[0], log_p))
        return Sample(values[0], extras, values[1:])

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        if not signal.has_alternatives:
            return None
        log_probs = draw.extras["log_probs"].unbind(-1)
        costs = [
            per_element(cost, log_probs[0], draw.event_dim) for cost in (signal.base, *signal.alternatives.unbind(0))
        ]
        log_p = [each.detach() for each in log_probs]
        after = set_log_probabilities(log_p, draw.extras["rest"])
        total = torch.zeros(())
        for s, log_prob in enumerate(log_probs):
            first = frozenset([s])
            baseline = torch.zeros(())
            for t, cost in enumerate(costs):
                ratio = (log_p[t] + after[first | {t}] - after[first]).exp()
                baseline = baseline + ratio * cost
            ratio = (after[first] - after[frozenset()]).exp()
            total = total + log_prob.exp() * ratio * (costs[s] - baseline)
        return over_event(total, draw.event_dim)


def set_log_probabilities(log_p: Sequence[Tensor], rest: Tensor) -> dict[frozenset[int], Tensor]:
    """For each subset C of S the log-probability that draws without replacement from D∖C are S∖C.

    Args:
        log_p: the log-probability of each value of S.
        rest: the logarithm of the probability of all values outside of S.

    Source: Kool et al. (2020), section 3; the sum over orders by dynamic programming.
    """
    everything = frozenset(range(len(log_p)))
    found = {everything: torch.zeros_like(rest)}
    for size in range(len(log_p) - 1, -1, -1):
        for gone in map(frozenset, itertools.combinations(sorted(everything), size)):
            left = sorted(everything - gone)
            mass = torch.stack([rest, *[log_p[i] for i in left]]).logsumexp(0)
            found[gone] = torch.stack([log_p[i] + found[gone | {i}] for i in left]).logsumexp(0) - mass
    return found
