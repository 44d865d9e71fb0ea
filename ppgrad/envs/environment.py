"""The protocol of an environment: pure functions of batched torch states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppgrad.envs.spaces import ActionSpace


class Step(NamedTuple):
    """What one step brings: the reward, whether the episode terminated, whether it was cut off; ``(episodes,)``."""

    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class Play(Protocol):
    """A batch of episodes that is being played.

    ``stops_early``: a run is over when all episodes are; else it goes on to the horizon, so that every
    run has the same sites.
    """

    stops_early: bool

    @property
    def observation(self) -> Any:
        """What the policy sees now: a tensor ``(episodes, …)``, or a dict or tuple of them."""

    def step(self, time: int, action: Tensor, alive: Tensor) -> Step:
        """Take one step; episodes that are not ``alive`` stay where they are."""

    def final_reward(self) -> Tensor | None:
        """What the state at the horizon earns, ``(episodes,)``; None for nothing."""


class Environment(ABC):
    """A Markov decision process in torch, batched, without memory and without randomness of its own.

    States are tensors ``(*batch, n)``. What is random is a Pyro site: the initial state is drawn at
    ``s_0``, a random transition at ``s_{t+1}``. So a rollout stays a Pyro program, runs under vmap,
    and is differentiable where the functions are.

    Actions beyond the bounds of a `Box` are clipped before an environment sees them, as `GymnasiumEnv` does.

    ``differentiable`` says that a gradient goes from an action to what follows; an environment that leaves
    torch sets it to False, so that no estimator looks for one.

    The shape of the protocol is Gymnasium's ``FuncEnv``.
    """

    differentiable: ClassVar[bool] = True

    @property
    @abstractmethod
    def action_space(self) -> ActionSpace:
        """What actions it takes."""

    @property
    def name(self) -> str:
        """What errors call it."""
        return type(self).__name__

    @abstractmethod
    def initial(self, episodes: int) -> Tensor:
        """Initial states, ``(episodes, n)``; what is random of them is drawn by ``pyro.sample("s_0", …)``."""

    @abstractmethod
    def transition(self, state: Tensor, action: Tensor) -> Tensor | dist.TorchDistribution:
        """The next state; or its distribution, of batch shape ``batch``, to be drawn at ``s_{t+1}``."""

    @abstractmethod
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """The reward of a step, of shape ``batch``."""

    def observation(self, state: Tensor) -> Tensor:
        """What the policy sees of a state; all of it unless the environment says otherwise."""
        return state

    def terminal(self, state: Tensor) -> Tensor:
        """Whether a state ends the episode, bool of shape ``batch``; never unless the environment says otherwise."""
        return torch.zeros_like(state[..., 0], dtype=torch.bool)

    def final_reward(self, state: Tensor) -> Tensor | None:
        """What a state earns at the horizon, of shape ``batch``; None for nothing."""
        return None

    def play(self, episodes: int) -> Play:
        """Begin episodes; inside of a program, in the plate of the episodes."""
        return _Simulation(self, episodes)


class _Simulation:
    """Episodes of an `Environment`."""

    stops_early = False

    def __init__(self, env: Environment, episodes: int):
        self._env = env
        self._state = env.initial(episodes)

    @property
    def observation(self) -> Tensor:
        return self._env.observation(self._state)

    def step(self, time: int, action: Tensor, alive: Tensor) -> Step:
        env, state = self._env, self._state
        action = env.action_space.clip(action)
        following = env.transition(state, action)
        if not isinstance(following, Tensor):
            following = pyro.sample(f"s_{time + 1}", following)
        reward = env.reward(state, action, following)
        terminated = env.terminal(following)
        self._state = where_alive(alive, following, state)
        return Step(reward, terminated, torch.zeros_like(terminated))

    def final_reward(self) -> Tensor | None:
        return self._env.final_reward(self._state)


def where_alive(alive: Tensor, new: Any, old: Any) -> Any:
    """``new`` for the episodes that go on, ``old`` for the finished ones; tensors, or trees of them."""

    def choose(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(alive.reshape(*alive.shape, *[1] * (new.dim() - alive.dim())), new, old)

    return choose(new, old) if isinstance(new, Tensor) else tree_map(choose, new, old)
