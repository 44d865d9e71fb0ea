"""Stochastic perturbation: how a discrete value moves over the boundaries of its inverse CDF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, Geometric, OneHotCategorical, Poisson

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.distributions import distribution_name, element, sampled
from ppgrad.estimators.discrete.contrast import contrast, with_weights
from ppgrad.estimators.discrete.elements import LEAST_LOGIT, index_of, log_probabilities, possible_or, value_at

_SERVED = (Bernoulli, Categorical, OneHotCategorical, Poisson, Geometric, Binomial)


@dataclass(frozen=True)
class StochasticPerturbation(Estimator):
    """∇E[f] = Σ_k −∇F(k) (f(k + 1) − f(k)), over the boundaries between neighbouring values.

    F is the distribution function: as a parameter moves, the inverse CDF of fixed noise crosses from
    k to k + 1 at the rate −∇F(k). From a value x the boundaries on either side are looked at, each
    weighted by 1 / (p(k) + p(k + 1)), since either neighbour would have led to it. Two branches, x + 1
    and x − 1, the coupled alternatives of x; one where there are but two values.

    Elements that a later cost couples take turns; elements of a plate share. The order of the values
    of a Categorical matters to the variance: neighbours should cost alike.

    Needs Bernoulli, Categorical, OneHotCategorical, Poisson, Geometric (the number of failures) or
    Binomial elements.

    Source: Arya et al. (2022), Automatic differentiation of programs with discrete randomness,
    section 2, here in reverse mode and without pruning.
    """

    facts: ClassVar[Facts] = Facts(
        source="Arya et al. (2022), Automatic Differentiation of Programs with Discrete Randomness, section 2"
    )
    needs: ClassVar[Needs] = Needs(alternatives=True, element_by_element=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        if isinstance(element(site.fn), _SERVED):
            return None
        *names, last = [kind.__name__ for kind in _SERVED]
        return f"{distribution_name(site.fn)} is neither {', '.join(names)} nor {last}"

    def sample(self, fn: TorchDistribution) -> Sample:
        value = sampled(fn)
        # A neighbour outside of the support has no weight, and the value drawn takes its place.
        if not isinstance(element(fn), Bernoulli | Categorical | OneHotCategorical):
            above = value + 1
            if isinstance(element(fn), Binomial):
                above = torch.minimum(above, element(fn).total_count)
            weights = with_weights([_rate(fn, value), -_rate(fn, value - 1)])
            return Sample(value, weights, torch.stack([above, (value - 1).clamp(min=0)]))
        drawn, log_probs = index_of(fn, value), log_probabilities(fn)
        last = len(log_probs) - 1
        if last == 0:
            return Sample(value)
        # Neighbours are those of the values that can happen; the others come behind them.
        order = (log_probs == LEAST_LOGIT).long().argsort(dim=0, stable=True)
        probabilities = log_probs.exp().gather(0, order)
        index = (order == drawn).long().argmax(0)
        either = (probabilities[:-1] + probabilities[1:]).detach()
        crossings = -probabilities.cumsum(0)[:-1] / either.clamp(min=torch.finfo(either.dtype).tiny)
        if last == 1:
            weight = (1 - 2 * index) * crossings[0]
            other = possible_or(1 - drawn.unsqueeze(0), drawn, log_probs)
            return Sample(value, with_weights([weight]), value_at(fn, other))
        above, below = _at(crossings, index), -_at(crossings, index - 1)
        others = torch.stack([(index + 1).clamp(max=last), (index - 1).clamp(min=0)])
        others = possible_or(order.gather(0, others), drawn, log_probs)
        return Sample(value, with_weights([above, below]), value_at(fn, others))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return contrast(draw, signal)


def _at(crossings: Tensor, boundary: Tensor) -> Tensor:
    """The rate of a boundary, 0 for those that are none."""
    inside = (boundary >= 0) & (boundary < len(crossings))
    found = crossings.gather(0, boundary.clamp(0, len(crossings) - 1).unsqueeze(0)).squeeze(0)
    return torch.where(inside, found, torch.zeros_like(found))


def _rate(fn: TorchDistribution, k: Tensor) -> Tensor:
    """A function of the parameters with the gradient of −F(k) / (p(k) + p(k + 1))⊥; 0 for k < 0.

    Poisson: −∂_λ F(k) = p(k). Geometric, in the logit: −(k + 1) (1 − p)^{k+1} p. Binomial, in the
    logit: (n − k) p · p(k). The ratio of p(k + 1) to p(k) is rational in all of them.
    """
    base = element(fn)
    k = k.clamp(min=-1)
    if isinstance(base, Poisson):
        rate = base.rate.expand(fn.shape())
        return rate * (k + 1) / (k + 1 + rate.detach())
    logits = base.logits.expand(fn.shape())
    p = torch.sigmoid(logits.detach())
    if isinstance(base, Geometric):
        return -logits * (k + 1) * (1 - p) / (2 - p)
    left = base.total_count.expand(fn.shape()) - k
    weight = left * p * (k + 1) * (1 - p) / ((k + 1) * (1 - p) + left * p)
    return logits * torch.where((k < 0) | (left <= 0), torch.zeros_like(weight), weight)
