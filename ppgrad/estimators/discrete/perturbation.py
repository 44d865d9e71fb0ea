"""Alternatives that a site would have drawn with other parameters and the same noise."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core.distributions import element_shape, sampled
from ppgrad.core.generators import generator_state, restore_generators
from ppgrad.core.parameters import rebuilt, unconstrained
from ppgrad.core.sample import Sample
from ppgrad.estimators.discrete.contrast import with_weights


def antithetic_steps(fn: TorchDistribution, directions: Tensor, step: float, count: int) -> Sample:
    """θ ± h d for each direction: Σ_d (f(θ + h d) − f(θ − h d)) d / (2 h count) estimates ∇_θ.

    All of them start from the state of the generators that the value itself was drawn from.

    Args:
        fn: the site's distribution.
        directions: of shape ``(m, *elements, numbers)``, as `ppgrad.core.parameters.unconstrained` orders them.
        step: h.
        count: over how many directions the estimate is averaged.
    """
    numbers = unconstrained(fn)
    start = generator_state()
    value = sampled(fn)
    end = generator_state()
    weights, alternatives = [], []
    for direction in directions:
        weight = (numbers * direction).sum(-1).reshape(element_shape(fn)) / (2 * step * count)
        for sign in (1, -1):
            restore_generators(start)
            weights.append(sign * weight)
            alternatives.append(sampled(rebuilt(fn, numbers.detach() + sign * step * direction)))
    restore_generators(end)
    return Sample(value, with_weights(weights), torch.stack(alternatives))
