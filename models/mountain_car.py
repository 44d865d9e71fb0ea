"""Drive a weak car up a hill: a reward that is far away, and a gradient that points home.

The dynamics are Gymnasium's MountainCarContinuous-v0. Every action costs 0.1a²; the goal pays 100, once, and ends the
episode. The car is too weak to go straight up. Before the goal was ever reached no estimator can know of it: all
gradients agree that to stand still is best. After it was, the score function sees the bonus, while pathwise, for which
the bonus is a jump, still sees only the cost of driving: it is biased here and must not be used.

The policy is "push the way that you roll", with noise: a = w·v/0.07 + b + σε. With a large w it reaches the goal,
and the bonus is there to be seen.

Source: Moore (1990), Efficient memory-based learning for robot control.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad.envs import MountainCarContinuous


class Policy(nn.Module):
    """Observations (x, v) to N(w·v/0.07 + b, σ²).

    Args:
        weight: initial w.
        std: initial σ, a parameter by its logarithm.
    """

    def __init__(self, weight: float, std: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight]))
        self.bias = nn.Parameter(torch.zeros(1))
        self.log_std = nn.Parameter(torch.tensor([std]).log())

    def forward(self, observation: Tensor) -> dist.Distribution:
        speed = observation[..., 1:] / 0.07
        return dist.Normal(self.weight * speed + self.bias, self.log_std.exp()).to_event(1)


def problem(weight: float = 1.0, std: float = 0.5, horizon: int = 200, episodes: int = 8) -> ppgrad.Problem:
    """A car that rocks itself up.

    Args:
        weight: initial w: how hard to push the way that the car rolls.
        std: initial standard deviation of the action.
        horizon: the most steps of an episode; Gymnasium's has 999.
        episodes: size of the plate; the objective adds up over it.
    """
    policy = Policy(weight, std)
    return ppgrad.Problem(
        model=ppgrad.rollout(MountainCarContinuous(), policy, horizon, episodes=episodes),
        objective=ppgrad.ExpectedReturn,
        about="rocking a weak car up a hill; the bonus at the goal is a jump",
        smooth=False,
        training={
            "estimator": "score+loo=episodes",
            "num_particles": 1,
            "steps": 100,
            "learning_rate": 0.05,
            "schedule": "linear",
        },
    )
