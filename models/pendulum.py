"""Swing up a pendulum: pathwise against the score function on one objective.

The dynamics are Gymnasium's Pendulum-v1 in torch, so that a return can be differentiated through all of its steps:

    pathwise         ∇J = E[∇ Σ_t r_t]                        (the noise of the actions held fixed),
    score function   ∇J = E[Σ_t ∇log π(a_t|o_t) Σ_{s≥t} r_s]   (the actions held fixed).

Over a short horizon pathwise is far less noisy. But an upright pendulum is unstable: the product of the steps'
Jacobians grows with the horizon, and the variance of pathwise with it.

    ppgrad compare models/pendulum.py --set horizon=20

Source: Metz et al. (2021), Gradients are not all you need; Parmas et al. (2018), PIPPS.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad.envs import Pendulum


class Policy(nn.Module):
    """Observations (cos θ, sin θ, ω) to N(2 tanh m(o), e^{2λ}) over torques; λ is a parameter.

    Args:
        hidden: units of each of the two hidden layers.
        std: initial e^λ.
        seed: of the initial weights; the global generators are left alone.
    """

    def __init__(self, hidden: int, std: float, seed: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.mean = nn.Sequential(
                nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
            )
        self.log_std = nn.Parameter(torch.tensor([std]).log())

    def forward(self, observation: Tensor) -> dist.Distribution:
        mean = 2.0 * torch.tanh(self.mean(observation))
        return dist.Normal(mean, self.log_std.exp()).to_event(1)


def problem(horizon: int = 20, episodes: int = 8, hidden: int = 32, std: float = 0.5, seed: int = 0) -> ppgrad.Problem:
    """A network that drives Pendulum.

    Args:
        horizon: steps of an episode; Gymnasium's has 200.
        episodes: size of the plate; the objective adds up over it.
        hidden: units of each hidden layer.
        std: initial standard deviation of the torque.
        seed: of the network's initial weights.
    """
    policy = Policy(hidden, std, seed)
    return ppgrad.Problem(
        model=ppgrad.rollout(Pendulum(), policy, horizon, episodes=episodes),
        objective=ppgrad.ExpectedReturn,
        about="swinging up a pendulum, differentiable dynamics",
    )
