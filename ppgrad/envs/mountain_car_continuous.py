"""Drive a weak car up a hill: Gymnasium's MountainCarContinuous-v0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppgrad.envs.arguments import finite
from ppgrad.envs.environment import Environment
from ppgrad.envs.spaces import ActionSpace, Box


@dataclass(frozen=True)
class MountainCarContinuous(Environment):
    """v′ = v + 0.0015u − 0.0025 cos 3x, x′ = x + v′, r = 100 at the goal − 0.1a², u = a clipped to [−1, 1].

    The state is (x, v) with x₀ ~ U(−0.6, −0.4) and v₀ = 0, x in [−1.2, 0.6] and |v| ≤ 0.07; the car
    stops dead at the left end. The episode terminates at x ≥ 0.45; Gymnasium cuts it off after 999 steps.
    The step itself pays for the action as it is given, as Gymnasium's; a rollout clips it first, so that a = u.
    The bonus at the goal is a jump, which pathwise does not see: what it sees is that driving costs.

    Args:
        goal_speed: the least speed at the goal.
        device: where the states are; None for torch's default.

    Raises:
        InvalidInput: ``goal_speed`` is no finite number.

    Source: Moore (1990), Efficient memory-based learning for robot control; Gymnasium,
    ``MountainCarContinuous-v0``.
    """

    goal_speed: float = 0.0
    device: torch.device | str | None = field(default=None, repr=False, kw_only=True)
    action_space: ClassVar[ActionSpace] = Box((1,), -1.0, 1.0)

    def __post_init__(self) -> None:
        finite(type(self).__name__, "goal_speed", self.goal_speed)

    def initial(self, episodes: int) -> Tensor:
        place = pyro.sample("s_0", dist.Uniform(torch.full((episodes,), -0.6, device=self.device), -0.4))
        return torch.stack([place, torch.zeros_like(place)], -1)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        place, speed = state.unbind(-1)
        speed = speed + action.squeeze(-1).clamp(-1.0, 1.0) * 0.0015 - 0.0025 * torch.cos(3 * place)
        speed = speed.clamp(-0.07, 0.07)
        place = (place + speed).clamp(-1.2, 0.6)
        stopped = (place == place.new_tensor(-1.2)) & (speed < 0)
        return torch.stack([place, torch.where(stopped, torch.zeros_like(speed), speed)], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return 100.0 * self.terminal(next_state).to(state.dtype) - 0.1 * action.squeeze(-1) ** 2

    def terminal(self, state: Tensor) -> Tensor:
        return (state[..., 0] >= 0.45) & (state[..., 1] >= self.goal_speed)
