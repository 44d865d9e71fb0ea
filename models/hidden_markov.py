"""A hidden Markov model: its states summed out of the likelihood, or drawn by a guide.

    z_0 ~ Categorical(π),   z_t | z_{t−1} ~ Categorical(A[z_{t−1}]),   x_t | z_t ~ N(m[z_t], 1),   t = 0 … T−1.

With ``latent="summed"`` the states are marked ``infer={"enumerate": "parallel"}``, and the guide draws nothing. The
bound is then the evidence log p(x), by variable elimination: T steps of K² numbers, which is the forward algorithm

    α_0 = log π + log N(x_0; m, 1),   α_t[j] = log Σ_i exp(α_{t−1}[i] + log A[i, j]) + log N(x_t; m[j], 1),
    log p(x) = log Σ_j exp α_{T−1}[j],

and its gradient that of the forward algorithm written in plain torch. With ``latent="drawn"`` a guide draws the states
from a chain q of its own, by whatever estimator, and the exact ELBO is a sum over all Kᵀ paths:

    ELBO = Σ_z q(z) (log p(x, z) − log q(z)).

Source: Rabiner (1989), A tutorial on hidden Markov models, eq. 19–21; Obermeyer et al. (2019), Tensor variable
elimination for plated factor graphs.
"""

from __future__ import annotations

import itertools
import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad

LATENTS = ("summed", "drawn")
MOST_PATHS = 20_000


def initial(states: int) -> dict[str, Tensor]:
    """Logits of π, shape (K,), logits of A, shape (K, K), and m, shape (K,)."""
    stays = 1.5 * torch.eye(states) + 0.1 * torch.arange(float(states))
    return {"start": torch.zeros(states), "step": stays, "mean": torch.linspace(-1.5, 1.5, states)}


def initial_guide(states: int) -> dict[str, Tensor]:
    """Logits of the guide's chain."""
    return {"guide_start": torch.linspace(-0.2, 0.2, states), "guide_step": 0.8 * torch.eye(states)}


def observations(steps: int) -> Tensor:
    """x, shape (T,); the same at every call."""
    time = torch.arange(float(steps))
    return 1.5 * torch.sin(time / 3.0) + 0.4 * torch.cos(5.0 * time)


def model(steps: int, states: int, latent: str) -> None:
    start, step, mean = (pyro.param(name, value) for name, value in initial(states).items())
    infer = {"enumerate": "parallel"} if latent == "summed" else None
    x, z = observations(steps), None
    for t in pyro.markov(range(steps)):
        z = pyro.sample(f"z_{t}", dist.Categorical(logits=start if z is None else step[z]), infer=infer)
        pyro.sample(f"x_{t}", dist.Normal(mean[z], 1.0), obs=x[t])


def guide(steps: int, states: int, latent: str) -> None:
    if latent == "drawn":
        start, step = (pyro.param(name, value) for name, value in initial_guide(states).items())
        z = None
        for t in range(steps):
            z = pyro.sample(f"z_{t}", dist.Categorical(logits=start if z is None else step[z]))


def evidence(start: Tensor, step: Tensor, mean: Tensor, x: Tensor) -> Tensor:
    """log p(x), by the forward algorithm; nothing of Pyro or of ppgrad in it."""
    seen = -0.5 * (x.unsqueeze(-1) - mean) ** 2 - 0.5 * math.log(2 * math.pi)
    forward = start.log_softmax(-1) + seen[0]
    for now in seen[1:]:
        forward = (forward.unsqueeze(-1) + step.log_softmax(-1)).logsumexp(0) + now
    return forward.logsumexp(-1)


def bound(own_start: Tensor, own_step: Tensor, start: Tensor, step: Tensor, mean: Tensor, x: Tensor) -> Tensor:
    """The ELBO of the drawn states, path by path."""
    seen = -0.5 * (x.unsqueeze(-1) - mean) ** 2 - 0.5 * math.log(2 * math.pi)
    paths = torch.tensor([*itertools.product(range(len(start)), repeat=len(x))])

    def density(first: Tensor, later: Tensor) -> Tensor:
        return first.log_softmax(-1)[paths[:, 0]] + later.log_softmax(-1)[paths[:, :-1], paths[:, 1:]].sum(-1)

    model_density = density(start, step) + seen[torch.arange(len(x)), paths].sum(-1)
    guide_density = density(own_start, own_step)
    return (guide_density.exp() * (model_density - guide_density)).sum()


def exact_gradient(steps: int, states: int, latent: str) -> dict[str, Tensor]:
    values = (initial_guide(states) if latent == "drawn" else {}) | initial(states)
    leaves = {name: value.double().requires_grad_() for name, value in values.items()}
    function = bound if latent == "drawn" else evidence
    value = function(*leaves.values(), observations(steps).double())
    gradients = torch.autograd.grad(value, [*leaves.values()])
    return {name: gradient.to(values[name].dtype) for name, gradient in zip(leaves, gradients, strict=True)}


def problem(steps: int = 6, states: int = 3, latent: str = "summed") -> ppgrad.Problem:
    """States of a hidden Markov model.

    Args:
        steps: T, two or more.
        states: K, two or more.
        latent: "summed" out of the likelihood, or "drawn" by a guide.
    """
    if latent not in LATENTS:
        raise ppgrad.InvalidInput(f"latent={latent!r}: write one of {', '.join(LATENTS)}.")
    if steps < 2 or states < 2:
        raise ppgrad.InvalidInput(f"steps={steps}, states={states}: both are integers from 2 up.")
    if latent == "drawn" and states**steps > MOST_PATHS:
        raise ppgrad.InvalidInput(f"steps={steps}: {states}^{steps} paths are too many. Write latent='summed'.")
    return ppgrad.Problem(
        model=model,
        guide=guide,
        args=(steps, states, latent),
        objective=ppgrad.ELBO,
        about=f"a hidden Markov model, {steps} steps of {states} states, {latent}",
        exact=lambda: exact_gradient(steps, states, latent),
    )
