"""Rollouts under test: a policy, a start and a way to move, written once for every library of distributions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppgrad

EPISODES = 64
HIDDEN = 64
STATE = 4


class ScalarPolicy(nn.Module):
    """a ~ N(k s, σ): two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(-0.5))
        self.log_scale = nn.Parameter(torch.tensor(-1.0))

    def forward(self, state: Tensor) -> Tensor:
        return self.gain * state

    def scale(self) -> Tensor:
        return self.log_scale.exp()


class CategoricalPolicy(nn.Module):
    """Logits of four actions by one hidden layer of 64 tanh units: the smallest net hides the least overhead."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, state: Tensor) -> Tensor:
        return self.net(state)

    def scale(self) -> None:
        return None


class GaussianPolicy(nn.Module):
    """The mean of an action of four dimensions by the same net, and a scale for each."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.log_scale = nn.Parameter(torch.full((STATE,), -1.0))

    def forward(self, state: Tensor) -> Tensor:
        return self.net(state)

    def scale(self) -> Tensor:
        return self.log_scale.exp()


def network() -> nn.Sequential:
    """Always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(STATE, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, STATE))


@dataclass(frozen=True)
class Kind:
    """What one kind of rollout is made from.

    Args:
        name: what the table calls it.
        policy: makes one with the weights it starts with.
        start: the first states of so many episodes, plate dimension first.
        density: of an action, from a library of distributions, the policy's output and its scale.
        move: the next state of each episode.
    """

    name: str
    policy: Callable[[], nn.Module]
    start: Callable[[int], Tensor]
    density: Callable[..., Any]
    move: Callable[[Tensor, Tensor], Tensor]

    @property
    def discrete(self) -> bool:
        return self.name == "categorical"

    def reward(self, state: Tensor) -> Tensor:
        """−|s|², one for each episode."""
        return -state.square() if state.dim() == 1 else -state.square().sum(-1)

    def program(self, policy: nn.Module, state: Tensor, steps: int) -> None:
        """The rollout as ppgrad's users write it."""
        scale = policy.scale()
        with pyro.plate("episodes", len(state)):
            for t in range(steps):
                action = ppgrad.policy(f"a_{t}", self.density(dist, policy(state), scale))
                state = self.move(state, action)
                ppgrad.reward(f"r_{t}", self.reward(state))


def _normal(library: Any, output: Tensor, scale: Tensor, **options: Any) -> Any:
    return library.Normal(output, scale, **options)


def _normals(library: Any, output: Tensor, scale: Tensor, **options: Any) -> Any:
    return library.Independent(library.Normal(output, scale, **options), 1, **options)


def _categorical(library: Any, output: Tensor, scale: None, **options: Any) -> Any:
    return library.Categorical(logits=output, **options)


def _starts(episodes: int) -> Tensor:
    return torch.sin(torch.arange(episodes * STATE, dtype=torch.get_default_dtype())).reshape(episodes, STATE)


PUSHES = 0.1 * torch.eye(STATE)
"""What each of the four actions adds to the state."""

SCALAR = Kind(
    "scalar",
    ScalarPolicy,
    start=lambda episodes: torch.linspace(-1.0, 1.0, episodes),
    density=_normal,
    move=lambda state, action: state + action,
)
CATEGORICAL = Kind(
    "categorical",
    CategoricalPolicy,
    start=_starts,
    density=_categorical,
    move=lambda state, action: 0.9 * state + PUSHES[action],
)
GAUSSIAN = Kind(
    "gaussian",
    GaussianPolicy,
    start=_starts,
    density=_normals,
    move=lambda state, action: 0.9 * state + 0.1 * action,
)
