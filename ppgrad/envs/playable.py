"""What `rollout` needs of an environment, and of a policy for it."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, Protocol

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin

from ppgrad.core import InvalidInput, InvalidProgram
from ppgrad.core.distributions import distribution_name
from ppgrad.envs.environment import Play
from ppgrad.envs.spaces import ActionSpace


class Playable(Protocol):
    """What `rollout` needs of an environment: an `Environment`, a `GymnasiumEnv`, or one of your own."""

    @property
    def name(self) -> str:
        """What errors call it."""

    @property
    def action_space(self) -> ActionSpace:
        """What actions it takes."""

    @property
    def differentiable(self) -> bool:
        """Whether a gradient goes from an action to what follows; True where an environment does not say."""

    def play(self, episodes: int) -> Play:
        """Begin episodes."""


def check_environment(env: Any) -> None:
    """Raise if ``env`` is no environment, and say how to write it as one."""
    if isinstance(env, str):
        raise InvalidInput(f"rollout({env!r}, …): an id is no environment. Write GymnasiumEnv({env!r}).")
    if inspect.isclass(env):
        raise InvalidInput(f"rollout({env.__name__}, …): a class is no environment. Write {env.__name__}(…).")
    if getattr(env, "spec", None) is not None and not hasattr(env, "play"):
        raise InvalidInput(
            f"rollout({env}, …): an environment of Gymnasium's own is one episode. Write GymnasiumEnv({env.spec.id!r})."
        )
    if not all(hasattr(env, name) for name in ("play", "action_space", "name")):
        raise InvalidInput(
            f"rollout({env!r}, …): write an environment, such as ppgrad.envs.Pendulum() or GymnasiumEnv('CartPole-v1')."
        )


def check_fit(env: Playable, space: ActionSpace, fn: Any, episodes: int, step: int) -> None:
    """Raise if the policy's distribution gives no actions of the environment's."""
    if not isinstance(fn, TorchDistributionMixin):
        raise InvalidProgram(
            f"The policy returned {type(fn).__name__} at step {step}. Return a Pyro distribution, such as "
            "pyro.distributions.Categorical(logits=…)."
        )
    does_not_fit = f"The policy's {distribution_name(fn)} does not fit the actions of {env.name}, {space}: "
    reason = space.refuses(fn)
    if reason is not None:
        raise InvalidProgram(f"{does_not_fit}{reason}.")
    if tuple(fn.batch_shape) not in ((), (1,), (episodes,)):
        raise InvalidProgram(
            f"{does_not_fit}its batch shape is {tuple(fn.batch_shape)}, and there are {episodes} episodes. Give it the "
            f"batch shape ({episodes},)."
        )


def check_bounds(env: Playable, space: ActionSpace, fn: dist.TorchDistribution) -> None:
    """Raise if a policy's bounds stick out of the environment's, and warn if they leave actions out."""
    beyond = space.exceeded(fn)
    if beyond is not None:
        raise InvalidProgram(f"The policy's actions do not fit {env.name}: {beyond}.")
    narrow = space.narrows(fn)
    if narrow is not None:
        warnings.warn(f"The policy cannot take all actions of {env.name}: {narrow}.", UserWarning, stacklevel=3)
