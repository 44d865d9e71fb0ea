"""A policy for any Gymnasium environment: pick an id, and the policy fits its spaces.

    ppgrad compare models/gymnasium_policy.py --set id=Acrobot-v1

Observations are flattened. Discrete actions get a `CategoricalPolicy`, real ones a `GaussianPolicy` with a standard
deviation of its own for each number. Gymnasium is NumPy: no gradient goes through the environment, only through the
densities of the actions, so that the score function is the default, and pathwise is refused. Episodes are in one
plate, and the others are each one's baseline:

    ExpectedReturn(ScoreFunction(LeaveOneOut(over="episodes")), discount=0.99)

Source: Williams (1992); Kool, van Hoof & Welling (2019).
"""

from __future__ import annotations

import math

import torch

import ppgrad
from ppgrad.envs import Box, GymnasiumEnv


def fitting_policy(env: GymnasiumEnv, hidden: int, seed: int) -> ppgrad.Policy:
    """A policy from flattened observations of an environment to its actions.

    Args:
        env: whose spaces it fits.
        hidden: units of the hidden layer.
        seed: of the initial weights; the global generators are left alone.
    """
    observations, actions = env.vector(1).single_observation_space.shape, env.action_space
    if not observations:
        raise ppgrad.InvalidInput(f"{env}: this policy reads arrays of real numbers. Write another id.")
    features = math.prod(observations)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(actions, Box) and len(actions.shape) == 1:
            return ppgrad.GaussianPolicy(features, *actions.shape, state_dependent=False, hidden=(hidden,))
        if isinstance(actions, Box) or not isinstance(actions.count, int):
            raise ppgrad.InvalidInput(
                f"{env}: this policy gives one discrete action or a vector, and the actions are {actions}. "
                "Write another id."
            )
        return ppgrad.CategoricalPolicy(features, actions.count, hidden=(hidden,))


def problem(
    id: str = "CartPole-v1", horizon: int = 200, episodes: int = 8, hidden: int = 32, seed: int = 0
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
    policy = fitting_policy(env, hidden, seed)
    return ppgrad.Problem(
        model=ppgrad.rollout(env, lambda observation: policy(observation.flatten(1)), horizon, episodes=episodes),
        objective=ppgrad.ExpectedReturn,
        about=f"a network that plays {id}",
        smooth=False,
        training={"estimator": "score+loo=episodes", "num_particles": 1, "steps": 60, "learning_rate": 0.03},
    )
