"""A ball thrown over a wall: why a differentiable simulator may give the wrong gradient.

The angle is a ~ N(μ, e^λ), the reward R(a) is how far the ball comes: as far as it flies if it clears the
wall, else to the wall. So R jumps, at the lowest angle c that clears the wall, by all that lies behind it. With
φ the density of a,

    ∂_μ E[R(a)]  =  E[R′(a)]  +  φ(c) · (R(c⁺) − R(c⁻))  +  …,

one such term for each jump. Pathwise averages R′ and leaves the jumps out. With the mean just below c the truth is
"throw higher, over the wall"; pathwise sees only those throws that cleared it, which would fly farther if they were
flatter, and says "lower". More samples do not help: it is biased, and its small variance looks like confidence. The
score function needs the values of R alone and is unbiased.

The exact gradient is a one-dimensional integral, by Gauss–Legendre quadrature between the jumps and kinks of R.

Source: Suh et al. (2022), Do differentiable simulators give better policy gradients?, section 3.2.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad.envs import BallWithWall

NODES = 64


class Throw(nn.Module):
    """N(μ, e^λ) over angles, whatever is observed.

    Args:
        mean: μ, in radians.
        std: e^λ.
    """

    def __init__(self, mean: float, std: float):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([mean]))
        self.log_std = nn.Parameter(torch.tensor([math.log(std)]))

    def forward(self, observation: Tensor) -> dist.Distribution:
        mean = self.mean.expand(*observation.shape[:-1], 1)
        return dist.Normal(mean, self.log_std.exp()).to_event(1)


def exact_gradient(env: BallWithWall, policy: Throw, episodes: int) -> dict[str, Tensor]:
    """∇ ∫ N(a; μ, σ) R(a) da; beyond [0, π/2] the ball comes nowhere, R = 0."""
    kink = 0.5 * math.asin(env.distance * env.gravity / env.speed**2)
    breaks = sorted([0.0, kink, *env.clearing_angles, math.pi / 2 - kink, math.pi / 2])
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    total = torch.zeros((), dtype=torch.float64)
    mean, log_std = policy.mean.double(), policy.log_std.double()
    for low, high in itertools.pairwise(breaks):
        angle = torch.tensor(0.5 * (high - low) * nodes + 0.5 * (high + low))
        density = dist.Normal(mean, log_std.exp()).log_prob(angle).exp()
        total = total + 0.5 * (high - low) * (torch.tensor(weights) * density * env.reach(angle)).sum()
    gradients = torch.autograd.grad(episodes * total, [policy.mean, policy.log_std])
    return dict(zip(("policy.mean", "policy.log_std"), gradients, strict=True))


def problem(mean: float = 0.85, std: float = 0.1, episodes: int = 1) -> ppgrad.Problem:
    """One throw.

    Args:
        mean: of the angle, in radians; 0.898 just clears the wall.
        std: of the angle.
        episodes: size of the plate; the objective adds up over it.
    """
    env, policy = BallWithWall(), Throw(mean, std)
    return ppgrad.Problem(
        model=ppgrad.rollout(env, policy, 1, episodes=episodes),
        objective=ppgrad.ExpectedReturn,
        about="a ball thrown over a wall: the return jumps",
        exact=lambda: exact_gradient(env, policy, episodes),
        smooth=False,
        training={"estimator": "score+loo", "num_particles": 64, "steps": 300, "learning_rate": 0.02},
    )
