"""A chain of Bernoulli and Categorical sites, each depending on the one before.

Layers d = 0 … D−1 are coins and dice by turns: v_d has K_d = 2 values at even d and K_d = 3 at odd d.
In each element n of a plate

    v_0 ~ Bernoulli(logit = η_0 + c_n),
    v_d | v_{d−1} ~ Categorical(logits = Λ_d[v_{d−1}])          d odd,
    v_d | v_{d−1} ~ Bernoulli(logit = η_d[v_{d−1}] + c_n)       d even, d > 0,
    r_d = w_d v_d − ½ (v_d − v_{d−1})²   (v_{−1} = 0),          J = Σ_n Σ_d E[r_d],

where c_n sets the elements apart. There are ∏_d K_d paths, and the exact gradient is that of the sum
over them, in plain torch:

    J = Σ_n Σ_{v_0 … v_{D−1}} ∏_d p(v_d | v_{d−1}, n) Σ_d r_d.

Pathwise cannot serve a discrete site. The score function can, and so can enumeration: its branches
are the same for all elements of the plate, so that their number is ∏_d K_d and not its N-th power.

Source: Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning, section 2.
"""

from __future__ import annotations

import itertools

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad

SIDES = 3


def is_coin(layer: int) -> bool:
    return layer % 2 == 0


def initial(depth: int) -> dict[str, Tensor]:
    """η_0, Λ_1, η_2, …: shapes (), (2, 3), (3,), (2, 3), …; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    shapes = [() if layer == 0 else (SIDES,) if is_coin(layer) else (2, SIDES) for layer in range(depth)]
    return {f"logits_{layer}": torch.randn(shape, generator=generator) for layer, shape in enumerate(shapes)}


def tilt(elements: int) -> Tensor:
    """c_n, shape ``(elements,)``."""
    return torch.linspace(-0.5, 0.5, elements)


def earned(layer: int, value: Tensor, before: Tensor) -> Tensor:
    """r_d, of the shape of ``value``."""
    weight = 1.0 if is_coin(layer) else -0.5
    return weight * value - 0.5 * (value - before) ** 2


def program(depth: int, elements: int) -> None:
    logits = [pyro.param(name, value) for name, value in initial(depth).items()]
    with pyro.plate("elements", elements):
        before = torch.zeros(elements)
        for layer in range(depth):
            own = logits[0].expand(elements) if layer == 0 else logits[layer][before.long()]
            fn = dist.Bernoulli(logits=own + tilt(elements)) if is_coin(layer) else dist.Categorical(logits=own)
            value = ppgrad.policy(f"v_{layer}", fn).to(before.dtype)
            ppgrad.reward(f"r_{layer}", earned(layer, value, before))
            before = value


def expected_return(logits: list[Tensor], elements: int) -> Tensor:
    """J, path by path; nothing of Pyro or of ppgrad in it."""
    value = torch.zeros(())
    for path in itertools.product(*(range(2 if is_coin(layer) else SIDES) for layer in range(len(logits)))):
        probability, total, before = torch.ones(elements), torch.zeros(()), 0
        for layer, here in enumerate(path):
            own = logits[0] if layer == 0 else logits[layer][before]
            if is_coin(layer):
                probability = probability * torch.sigmoid((own + tilt(elements)) * (2 * here - 1))
            else:
                probability = probability * own.softmax(-1)[here]
            total = total + earned(layer, torch.tensor(float(here)), torch.tensor(float(before)))
            before = here
        value = value + (probability * total).sum()
    return value


def exact_gradient(depth: int, elements: int) -> dict[str, Tensor]:
    leaves = {name: value.requires_grad_() for name, value in initial(depth).items()}
    value = expected_return(list(leaves.values()), elements)
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def problem(depth: int = 3, elements: int = 3) -> ppgrad.Problem:
    """Coins and dice by turns.

    Args:
        depth: layers D, one or more.
        elements: size of the plate.
    """
    if depth < 1 or elements < 1:
        raise ppgrad.InvalidInput(f"depth={depth}, elements={elements}: both are integers from 1 up.")
    return ppgrad.Problem(
        model=program,
        objective=ppgrad.ExpectedReturn,
        about=f"a chain of {depth} discrete sites",
        args=(depth, elements),
        exact=lambda: exact_gradient(depth, elements),
    )
