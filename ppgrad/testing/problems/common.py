"""What problems share: parameters, their gradient in closed form, expectations over several runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import pyro
import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]


def parameters(initial: Mapping[str, object]) -> Parameters:
    """The program's parameters, from the param store."""
    return {name: pyro.param(name, torch.as_tensor(value) * 1.0) for name, value in initial.items()}


def closed_form(
    initial: Mapping[str, object], value: Callable[[Parameters], Tensor]
) -> Callable[[], dict[str, Tensor]]:
    """The gradient of ``value``, the expectation written out, at the initial parameters."""

    def exact() -> dict[str, Tensor]:
        leaves = {name: (torch.as_tensor(v) * 1.0).requires_grad_() for name, v in initial.items()}
        gradients = torch.autograd.grad(value(leaves), list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True))

    return exact


def over_tuples(probabilities: Tensor, returns: Tensor, size: int, value: Callable[[Tensor], Tensor]) -> Tensor:
    """E of a function of the returns of independent runs."""
    tuples = itertools.product(range(len(returns)), repeat=size)
    return torch.stack([probabilities[list(i)].prod() * value(returns[list(i)]) for i in tuples]).sum()


def bound_of_two(probabilities: Tensor, gains: Tensor, sharpness: float = 1.0) -> Tensor:
    """E (1/s) log ½ (exp s g₁ + exp s g₂) over independent pairs."""
    scaled = sharpness * gains
    pairs = torch.logaddexp(scaled[:, None], scaled[None, :]) - math.log(2)
    return probabilities @ pairs @ probabilities / sharpness
