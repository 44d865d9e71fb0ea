"""Throw a ball over a wall: a return that jumps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ppgrad.core import InvalidInput
from ppgrad.envs.arguments import positive
from ppgrad.envs.environment import Environment
from ppgrad.envs.spaces import ActionSpace, Box


@dataclass(frozen=True)
class BallWithWall(Environment):
    """One throw at an angle a; the reward is how far the ball comes: v² sin 2a / g, or to the wall.

    The ball flies along y(x) = x tan a − g x² / (2 v² cos² a). Where y(wall) falls short of the wall's height
    the ball drops there and the reward is the wall's distance, so that the reward jumps at the angle
    that just clears the wall. Pathwise differentiates on either side and misses the jump; the score function
    does not. The state is (how far the ball is, whether it was thrown); a thrown ball ends the episode.

    Args:
        speed: v.
        distance: of the wall, nearer than the farthest throw.
        height: of the wall.
        gravity: g.
        device: where the states are; None for torch's default.

    Raises:
        InvalidInput: a number is not positive.

    Source: Suh, Simchowitz, Zhang & Tedrake (2022), Do differentiable simulators give better policy
    gradients?, section 3.2.
    """

    speed: float = 10.0
    distance: float = 4.0
    height: float = 3.0
    gravity: float = 9.81
    device: torch.device | str | None = field(default=None, repr=False, kw_only=True)
    action_space: ClassVar[ActionSpace] = Box((1,), 0.0, math.pi / 2)

    def __post_init__(self) -> None:
        for name in ("speed", "distance", "height", "gravity"):
            positive(type(self).__name__, name, getattr(self, name))

    def initial(self, episodes: int) -> Tensor:
        return torch.zeros(episodes, 2, device=self.device)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        angle = action.squeeze(-1)
        place = state[..., 0] + self.reach(angle)
        return torch.stack([place, torch.ones_like(place)], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return next_state[..., 0] - state[..., 0]

    def terminal(self, state: Tensor) -> Tensor:
        return state[..., 1] > 0

    def reach(self, angle: Tensor) -> Tensor:
        """How far a throw at an angle comes; an angle beyond [0, π/2] is taken at the bound.

        Args:
            angle: any shape, in radians.

        Returns:
            The distance, of the same shape.
        """
        angle = angle.clamp(0.0, math.pi / 2)
        flight = self.speed**2 * torch.sin(2 * angle) / self.gravity
        clears = (flight > self.distance) & (self._surplus(angle) > 0)
        wall = torch.full_like(flight, self.distance)
        return torch.where(clears, flight, torch.minimum(flight, wall))

    def _surplus(self, angle: Tensor) -> Tensor:
        """(y(wall) − height) cos² a: the sign of what the ball has over the wall."""
        drop = self.gravity * self.distance**2 / (2 * self.speed**2)
        return self.distance * angle.sin() * angle.cos() - drop - self.height * angle.cos() ** 2

    @property
    def clearing_angles(self) -> tuple[float, float]:
        """The lowest and the highest angle that clear the wall, in radians, where the reach jumps.

        Raises:
            InvalidInput: no throw clears it.
        """
        # With k = tan a: distance·k − drop(1 + k²) − height = 0.
        drop = self.gravity * self.distance**2 / (2 * self.speed**2)
        root = self.distance**2 - 4 * drop * (drop + self.height)
        if root <= 0:
            raise InvalidInput(f"{self}: no throw clears the wall. Write a lower height or a higher speed.")
        low, high = ((self.distance - sign * math.sqrt(root)) / (2 * drop) for sign in (1, -1))
        return math.atan(low), math.atan(high)
