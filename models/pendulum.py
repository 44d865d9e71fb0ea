"""Swing up a pendulum: pathwise against the score function on one objective.

The dynamics are Gymnasium's Pendulum-v1 in torch, so that a return can be differentiated through all of its steps:

    pathwise         ∇J = E[∇ Σ_t r_t]                        (the noise of the actions held fixed),
    score function   ∇J = E[Σ_t ∇log π(a_t|o_t) Σ_{s≥t} r_s]   (the actions held fixed).

Over a short horizon pathwise is far less noisy. But an upright pendulum is unstable: the product of the steps'
Jacobians grows with the horizon, and the variance of pathwise with it.

    ppgrad compare models/pendulum.py --set horizon=20
    ppgrad train models/pendulum.py

An episode of 50 steps, from anywhere, is long enough to learn what a whole one of 200 needs.

Source: Metz et al. (2021), Gradients are not all you need; Parmas et al. (2018), PIPPS.
"""

from __future__ import annotations

import torch

import ppgrad
from ppgrad.envs import Pendulum


def swinging_policy(hidden: int = 32, std: float = 1.0, seed: int = 0) -> ppgrad.GaussianPolicy:
    """Observations (cos θ, sin θ, ω) to torques: 2 tanh of a Normal whose standard deviation is a parameter.

    Args:
        hidden: units of each of the two hidden layers.
        std: initial standard deviation of the raw torque, before it is squashed.
        seed: of the initial weights; the global generators are left alone.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ppgrad.GaussianPolicy(
            3, 1, state_dependent=False, squash=True, bounds=(-2.0, 2.0), scale=std, hidden=(hidden, hidden)
        )


def problem(horizon: int = 50, episodes: int = 16, hidden: int = 32, std: float = 1.0, seed: int = 0) -> ppgrad.Problem:
    """A network that drives Pendulum.

    Args:
        horizon: steps of an episode; Gymnasium's has 200.
        episodes: size of the plate; the objective adds up over it.
        hidden, std, seed: of `swinging_policy`.
    """
    policy = swinging_policy(hidden, std, seed)
    return ppgrad.Problem(
        model=ppgrad.rollout(Pendulum(), policy, horizon, episodes=episodes),
        objective=ppgrad.ExpectedReturn,
        about="swinging up a pendulum, differentiable dynamics",
        training={
            "estimator": "pathwise",
            "num_particles": 1,
            "steps": 300,
            "learning_rate": 0.02,
            "schedule": "linear",
            "max_grad_norm": 10.0 * episodes,
        },
    )
