"""Linear-quadratic control: the problem on which every policy gradient can be checked.

A double integrator, x′ = Ax + Bu from x₀ ~ N(0, I), pays xᵀQx + uᵀRu in each of T steps and xᵀQ_T x at the end:

    A = [1 0.1; 0 1],   B = [0, 0.1]ᵀ,   Q = Q_T = I,   R = 0.1,   u = −Kx + σε,  ε ~ N(0, 1).

All states are Gaussian, so the return J(K) is a sum of traces and its gradient is exact; so is the value of a
state, V_t(x) = −xᵀP_t x − c_t, by Riccati's recursion backwards. At K = 0 with σ = 0.1 and T = 20

    J = −70.7543,   ∇J = (73.0877, 83.2712);   the best K is (2.28271, 3.72740), with J = −18.28283.

Variance of the gradient of one episode, summed over both components:

    estimator                                                   K = 0    best K
    score function, every score times the whole return          3.4e8    4.7e6
    score function, reward to go (what ppgrad credits)          1.3e8    1.5e6
    score function, V_t(x_t) as a baseline (`value_baselines`)  4.5e4    1.70
    pathwise                                                    2.9e4    0.166

A state-value baseline buys most of what lies between the score function and pathwise.

Source: Fazel et al. (2018), Global convergence of policy gradient methods for the linear quadratic regulator.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad.envs import LinearQuadratic

BEST_GAIN = (2.28271, 3.72740)


class LinearPolicy(nn.Module):
    """States ``(…, 2)`` to N(−Kx, σ²).

    Args:
        gain: K.
        std: σ.
    """

    def __init__(self, gain: Sequence[float], std: float):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([list(gain)]))
        self.std = std

    def forward(self, state: Tensor) -> dist.Distribution:
        return dist.Normal(-state @ self.gain.mT, self.std).to_event(1)


class Value(nn.Module):
    """V_t(x) under a policy that is held fixed, as a critic."""

    def __init__(self, env: LinearQuadratic, policy: LinearPolicy, steps: int):
        super().__init__()
        self.env, self.gain, self.std, self.steps = env, policy.gain.detach().clone(), policy.std, steps

    def forward(self, state: Tensor) -> Tensor:
        return self.env.value(state, self.gain, self.std, self.steps)


def value_baselines(policy: LinearPolicy, horizon: int) -> dict[str, ppgrad.Estimator]:
    """The score function with the exact V_t(x_t) as baseline, for each site: ``ExpectedReturn(sites=…)``."""
    env = LinearQuadratic()
    critics = [ppgrad.Critic(Value(env, policy, horizon - t)) for t in range(horizon)]
    return {f"a_{t}": ppgrad.ScoreFunction(critic) for t, critic in enumerate(critics)}


def problem(
    gain: Sequence[float] = (0.0, 0.0), std: float = 0.1, horizon: int = 20, episodes: int = 1
) -> ppgrad.Problem:
    """A linear policy on a double integrator.

    Args:
        gain: K, where the gradient is taken.
        std: σ of the policy.
        horizon: T.
        episodes: size of the plate; the objective adds up over it.
    """
    env, policy = LinearQuadratic(), LinearPolicy(gain, std)
    return ppgrad.Problem(
        model=ppgrad.rollout(env, policy, horizon, episodes=episodes),
        objective=ppgrad.ExpectedReturn,
        about="linear-quadratic control with a linear policy",
        exact=lambda: {"policy.gain": episodes * env.gradient(policy.gain, std, horizon)},
        training={
            "estimator": "pathwise",
            "num_particles": 64,
            "steps": 200,
            "learning_rate": 0.4,
            "schedule": "linear",
        },
    )
