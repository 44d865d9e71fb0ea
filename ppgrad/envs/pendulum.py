"""Swing a pendulum up: Gymnasium's Pendulum-v1."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppgrad.envs.arguments import not_negative
from ppgrad.envs.environment import Environment
from ppgrad.envs.spaces import ActionSpace, Box


@dataclass(frozen=True)
class Pendulum(Environment):
    """ω′ = ω + (3g/2l · sin θ + 3/ml² · u)Δ, θ′ = θ + ω′Δ, r = −(θ² + 0.1ω² + 0.001u²), θ in [−π, π].

    The state is (θ, ω), the observation (cos θ, sin θ, ω), the action a torque u in [−2, 2]; Δ = 0.05,
    m = l = 1, |ω| ≤ 8. It never terminates; Gymnasium cuts it off after 200 steps. Differentiable: the
    clamp on the torque passes no gradient beyond it.

    Args:
        gravity: g, zero or more.
        device: where the states are; None for torch's default.

    Raises:
        InvalidInput: ``gravity`` is negative or not finite.

    Source: Gymnasium, ``Pendulum-v1``.
    """

    gravity: float = 10.0
    device: torch.device | str | None = field(default=None, repr=False, kw_only=True)
    action_space: ClassVar[ActionSpace] = Box((1,), -2.0, 2.0)

    def __post_init__(self) -> None:
        not_negative(type(self).__name__, "gravity", self.gravity)

    def initial(self, episodes: int) -> Tensor:
        high = torch.tensor([math.pi, 1.0], device=self.device).expand(episodes, 2)
        return pyro.sample("s_0", dist.Uniform(-high, high).to_event(1))

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        angle, speed = state.unbind(-1)
        torque = _torque(action)
        speed = speed + (3 * self.gravity / 2 * angle.sin() + 3.0 * torque) * 0.05
        speed = speed.clamp(-8.0, 8.0)
        return torch.stack([angle + speed * 0.05, speed], -1)

    def observation(self, state: Tensor) -> Tensor:
        angle, speed = state.unbind(-1)
        return torch.stack([angle.cos(), angle.sin(), speed], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        angle, speed = state.unbind(-1)
        normalized = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        return -(normalized**2 + 0.1 * speed**2 + 0.001 * _torque(action) ** 2)


def _torque(action: Tensor) -> Tensor:
    return action.squeeze(-1).clamp(-2.0, 2.0)
