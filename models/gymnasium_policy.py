"""A policy for any Gymnasium environment: pick an id, and the policy fits its spaces.

    ppgrad compare models/gymnasium_policy.py --set id=Acrobot-v1

Observations are flattened. Discrete actions get a Categorical, real ones a Normal with a standard deviation of its
own for each number. Gymnasium is NumPy: no gradient goes through the environment, only through the densities of the
actions, so that the score function is the one to choose. Episodes are in one plate, and the others are each one's
baseline:

    ExpectedReturn(ScoreFunction(LeaveOneOut(over="episodes")), discount=0.99)

Source: Williams (1992); Kool, van Hoof & Welling (2019).
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad.envs import Box, GymnasiumEnv


class Policy(nn.Module):
    """Observations, flattened, to a Categorical or a Normal over the actions of an environment.

    Args:
        env: whose spaces it fits.
        hidden: units of the hidden layer.
        seed: of the initial weights; the global generators are left alone.
    """

    def __init__(self, env: GymnasiumEnv, hidden: int, seed: int):
        super().__init__()
        shape = env.vector(1).single_observation_space.shape
        self.space = env.action_space
        if not shape:
            raise ppgrad.InvalidInput(f"{env}: this policy reads arrays of real numbers. Write another id.")
        real = isinstance(self.space, Box)
        outputs = math.prod(self.space.shape) if real else self.space.count
        if isinstance(outputs, tuple):
            raise ppgrad.InvalidInput(f"{env}: this policy takes one discrete action at a time. Write another id.")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = nn.Sequential(nn.Linear(math.prod(shape), hidden), nn.Tanh(), nn.Linear(hidden, outputs))
        if real:
            self.log_std = nn.Parameter(torch.zeros(self.space.shape))

    def forward(self, observation: Tensor) -> dist.Distribution:
        output = self.network(observation.flatten(1))
        if not isinstance(self.space, Box):
            return dist.Categorical(logits=output)
        mean = output.reshape(-1, *self.space.shape)
        return dist.Normal(mean, self.log_std.exp()).to_event(len(self.space.shape))


def problem(
    id: str = "CartPole-v1", horizon: int = 50, episodes: int = 8, hidden: int = 32, seed: int = 0
) -> ppgrad.Problem:
    """A network that plays a Gymnasium environment.

    Args:
        id: of the environment.
        horizon: the most steps of an episode.
        episodes: size of the plate; the objective adds up over it.
        hidden: units of the hidden layer.
        seed: of the network's initial weights.
    """
    env = GymnasiumEnv(id)
    policy = Policy(env, hidden, seed)
    return ppgrad.Problem(
        model=ppgrad.rollout(env, policy, horizon, episodes=episodes),
        objective=ppgrad.ExpectedReturn,
        about=f"a network that plays {id}",
        smooth=False,
    )
