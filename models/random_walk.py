"""Random walks past a lighthouse that is written in NumPy: there is no gradient path.

Walkers n = 1 … N in a plate take T independent steps from places y_n of their own,

    x_{n,t} = x_{n,t−1} + z_{n,t},   x_{n,0} = y_n,   r_{n,t} = cos(ω x_{n,t}),

with ``steps="gaussian"``, z ~ N(μ, e^λ), or ``steps="coin"``, z = 2b − 1 and b ~ Bernoulli(logit η).
The reward is an environment's that knows nothing of torch: it is computed in NumPy, from values
cut off from the graph. So the program cannot be differentiated through its rewards, and
pathwise says 0 for Gaussian steps, under a warning. Nor can vmap carry it: replicates run in a
loop, and the log says why. The score function needs the rewards' values alone.

The expectation is in closed form even so. Steps are independent, so with the characteristic
function χ(ω) = E[e^{iωz}] of one step E[e^{iωx_t}] = e^{iωy} χ(ω)^t, and

    J = Re Σ_n Σ_t e^{iωy_n} χ(ω)^t,
    gaussian   χ = exp(iωμ − ½ω²e^{2λ}),
    coin       χ = p e^{iω} + (1 − p) e^{−iω},   p = 1/(1 + e^{−η}).

Source: Williams (1992), Simple statistical gradient-following algorithms, eq. 4; the closed
form is the convolution theorem for characteristic functions.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad

INITIAL = {"gaussian": {"mu": 0.4, "log_sigma": -0.5}, "coin": {"logit": 0.5}}


def program(steps: str, horizon: int, walkers: int, omega: float) -> None:
    parameters = {name: pyro.param(name, torch.tensor(value)) for name, value in INITIAL[steps].items()}
    place = starts(walkers)
    with pyro.plate("walkers", walkers):
        for t in pyro.markov(range(horizon)):
            if steps == "gaussian":
                fn = dist.Normal(parameters["mu"], parameters["log_sigma"].exp())
                place = place + ppgrad.policy(f"step_{t}", fn)
            else:
                fn = dist.Bernoulli(logits=parameters["logit"])
                place = place + 2 * ppgrad.policy(f"step_{t}", fn) - 1
            ppgrad.reward(f"light_{t}", lighthouse(place.detach().numpy(), omega))


def lighthouse(place: np.ndarray, omega: float) -> np.ndarray:
    """How bright it is at a place: plain NumPy."""
    return np.cos(omega * place)


def starts(walkers: int) -> Tensor:
    return torch.linspace(0.0, 1.0, walkers)


def expected_return(parameters: dict[str, Tensor], steps: str, horizon: int, walkers: int, omega: float) -> Tensor:
    """J by the characteristic function, a scalar with a graph to the parameters."""
    if steps == "gaussian":
        variance = (2 * parameters["log_sigma"]).exp()
        log_step = torch.complex(-0.5 * omega**2 * variance, omega * parameters["mu"])
    else:
        p, turn = parameters["logit"].sigmoid(), torch.tensor(omega)
        log_step = torch.complex(turn.cos(), (2 * p - 1) * turn.sin()).log()
    times = torch.arange(1, horizon + 1)
    return torch.exp(1j * omega * starts(walkers).unsqueeze(-1) + times * log_step).real.sum()


def exact_gradient(steps: str, horizon: int, walkers: int, omega: float) -> dict[str, Tensor]:
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in INITIAL[steps].items()}
    value = expected_return(leaves, steps, horizon, walkers, omega)
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def problem(steps: str = "gaussian", horizon: int = 3, walkers: int = 4, omega: float = 1.0) -> ppgrad.Problem:
    """Random walks with a reward in NumPy.

    Args:
        steps: ``"gaussian"`` or ``"coin"``.
        horizon: steps of each walker.
        walkers: size of the plate.
        omega: how fast the light turns with the place.
    """
    if steps not in INITIAL:
        raise ppgrad.InvalidInput(f"steps={steps!r}: write one of {', '.join(INITIAL)}.")
    return ppgrad.Problem(
        model=program,
        objective=ppgrad.ExpectedReturn,
        about=f"a random walk of {steps} steps, its reward computed in NumPy",
        args=(steps, horizon, walkers, omega),
        exact=lambda: exact_gradient(steps, horizon, walkers, omega),
        smooth=False,  # the slope of the reward is there, but NumPy hides it
    )
