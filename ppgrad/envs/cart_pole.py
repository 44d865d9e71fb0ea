"""Balance a pole on a cart: Gymnasium's CartPole-v1."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppgrad.envs.environment import Environment
from ppgrad.envs.spaces import ActionSpace, Discrete


@dataclass(frozen=True)
class CartPole(Environment):
    """A pole on a cart that is pushed to the left (0) or to the right (1); a reward of 1 for each step.

    The state is (x, ẋ, θ, θ̇), from U(−0.05, 0.05). The episode terminates when the pole leans by more than
    12° or the cart is 2.4 away; Gymnasium cuts it off after 500 steps. The force is 10(2a − 1), so that a
    relaxed action between 0 and 1 is a smaller push; the end of an episode is a jump all the same.

    Args:
        device: where the states are; None for torch's default.

    Source: Barto, Sutton & Anderson (1983); Gymnasium, ``CartPole-v1``.
    """

    device: torch.device | str | None = field(default=None, repr=False, kw_only=True)
    action_space: ClassVar[ActionSpace] = Discrete(2)

    def initial(self, episodes: int) -> Tensor:
        high = torch.full((episodes, 4), 0.05, device=self.device)
        return pyro.sample("s_0", dist.Uniform(-high, high).to_event(1))

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        x, speed, angle, turn = state.unbind(-1)
        force = 10.0 * (2 * action.to(state.dtype) - 1)
        cos, sin = angle.cos(), angle.sin()
        push = (force + 0.05 * turn**2 * sin) / 1.1
        angular = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
        acceleration = push - 0.05 * angular * cos / 1.1
        return torch.stack(
            [x + 0.02 * speed, speed + 0.02 * acceleration, angle + 0.02 * turn, turn + 0.02 * angular], -1
        )

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return state.new_ones(state.shape[:-1])

    def terminal(self, state: Tensor) -> Tensor:
        return (state[..., 0].abs() > 2.4) | (state[..., 2].abs() > 12 * 2 * math.pi / 360)
