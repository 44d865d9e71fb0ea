"""What problems share: parameters, their gradient in closed form, expectations over several runs, a program."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
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


def bernoulli_latents() -> tuple[dict[str, Any], tuple[float, float], Callable[[], None], Callable[[], None]]:
    """z_n ~ Bernoulli(⅓) in a plate, x_n | z_n ~ N(z_n w, 1): parameters, data, model and guide."""
    initial: dict[str, Any] = {"logits": [0.4, -0.6], "w": 1.5}
    data = (1.2, 0.1)

    def model() -> None:
        p = parameters({"w": initial["w"]})
        with pyro.plate("n", 2):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(1 / 3)))
            pyro.sample("x", dist.Normal(z * p["w"], 1.0), obs=torch.tensor(data) * 1.0)

    def guide() -> None:
        p = parameters({"logits": initial["logits"]})
        with pyro.plate("n", 2):
            pyro.sample("z", dist.Bernoulli(logits=p["logits"]))

    return initial, data, model, guide
