"""Weak derivatives of Bernoulli, Categorical, OneHotCategorical and Poisson."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core.distributions import element, element_shape, sampled
from ppgrad.estimators._measure_valued.pair import Pair
from ppgrad.estimators.discrete.elements import log_probabilities, other_values, value_at


def bernoulli_pairs(fn: TorchDistribution, value: Tensor, coupled: bool) -> list[Pair]:
    """p: 1 against 0, one of which is the value drawn."""
    return [Pair(probability, other) for probability, other in other_values(fn, value)]


def categorical_pairs(fn: TorchDistribution, value: Tensor, coupled: bool) -> list[Pair]:
    """log p_k, c = p_k: k against the value drawn, or against a draw of its own."""
    if coupled:
        return [Pair(probability, other) for probability, other in other_values(fn, value)]
    index = torch.zeros(element_shape(fn), dtype=torch.long, device=value.device)
    probabilities = log_probabilities(fn).exp()
    return [Pair(p, value_at(fn, index + k), sampled(fn)) for k, p in enumerate(probabilities)]


def poisson_pairs(fn: TorchDistribution, value: Tensor, coupled: bool) -> list[Pair]:
    """λ: x + 1 against x."""
    rate = element(fn).rate.expand(fn.shape())
    return [Pair(rate, value + 1, None if coupled else sampled(fn))]
