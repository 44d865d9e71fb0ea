"""Weak derivatives of Bernoulli, Categorical, OneHotCategorical and Poisson."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core.distributions import element, sampled
from ppgrad.estimators._measure_valued.pair import Pair
from ppgrad.estimators.discrete.elements import index_of, log_probabilities, other_values, possible_or, value_at


def bernoulli_pairs(fn: TorchDistribution, value: Tensor, coupled: bool) -> list[Pair]:
    """p: 1 against 0, one of which is the value drawn."""
    return [Pair(probability, other) for probability, other in other_values(fn, value)]


def categorical_pairs(fn: TorchDistribution, value: Tensor, coupled: bool) -> list[Pair]:
    """log p_k, c = p_k: k against the value drawn, or against a draw of its own."""
    if coupled:
        return [Pair(probability, other) for probability, other in other_values(fn, value)]
    log_probs = log_probabilities(fn)
    index = torch.arange(len(log_probs), device=value.device).reshape(-1, *[1] * (log_probs.dim() - 1))
    values = value_at(fn, possible_or(index.expand_as(log_probs), index_of(fn, value), log_probs))
    return [Pair(p, plus, sampled(fn)) for p, plus in zip(log_probs.exp(), values, strict=True)]


def poisson_pairs(fn: TorchDistribution, value: Tensor, coupled: bool) -> list[Pair]:
    """λ: x + 1 against x."""
    rate = element(fn).rate.expand(fn.shape())
    return [Pair(rate, value + 1, None if coupled else sampled(fn))]
