"""`rollout`: an environment and a policy as a Pyro program."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ppgrad.core import InvalidInput, InvalidProgram, NonFinite
from ppgrad.core.distributions import distribution_name
from ppgrad.core.generators import draws_up_front
from ppgrad.core.modules import Frozen, fit_to_signal
from ppgrad.envs.environment import Play, where_alive
from ppgrad.envs.spaces import ActionSpace
from ppgrad.sites import policy as policy_site
from ppgrad.sites import reward as reward_site


class Rollout(NamedTuple):
    """What `rollout` made a program of; the program has it as its attribute ``rollout``."""

    env: Playable
    policy: Callable[[Any], dist.TorchDistribution]
    horizon: int
    episodes: int


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


@dataclass(frozen=True)
class Episodes:
    """What a run of a rollout returns; tensors of shape ``(episodes,)``.

    Args:
        returns: the sum of each episode's rewards, without discount.
        lengths: how many steps it took.
        terminated: the environment reached a terminal state: nothing is to be earned from there.
        truncated: it was cut off, by the horizon or by the environment's own limit.
        observation: what the policy would have seen next; a tensor, or a tree of tensors.
    """

    returns: Tensor
    lengths: Tensor
    terminated: Tensor
    truncated: Tensor
    observation: Any


def rollout(
    env: Playable,
    policy: Callable[[Any], dist.TorchDistribution],
    horizon: int,
    *,
    episodes: int = 1,
    bootstrap: torch.nn.Module | None = None,
) -> Callable[[], Episodes]:
    """A Pyro program that plays episodes: a_t ~ π(·|o_t), r_t, for t = 0 … horizon − 1.

    In the plate ``"episodes"`` it draws the initial state at ``s_0`` and then, in each step, the action
    at the policy site ``a_t`` (whose context is the observation), a random transition at ``s_{t+1}``, and
    earns the reward at ``r_t``; what the state at the horizon earns is at ``r_{horizon}``. A finished
    episode earns nothing more, and its draws do not count: the policy site is masked, and no estimator
    sees a score of it. Where the environment is not ``differentiable`` the policy sites say so, in
    ``infer["differentiable"]``: the score function serves them, and what differentiates the cost is refused.

    Without ``bootstrap`` the objective is the return up to the horizon, or to where the environment cuts an
    episode off: such an end counts like a terminal state. With it V(o), the return that is expected from there,
    is earned at ``v_t`` by an episode that was cut off before step t: what is estimated is the gradient of the sum, and
    as much of the endless return's as V is right.

    As in any Pyro program the objective adds up over the plate: it is ``episodes`` times the expected
    return of one. Discounts belong to the objective: ``ExpectedReturn(discount=0.99)``.

    Args:
        env: the environment.
        policy: from observations, ``(episodes, …)``, to a Pyro distribution of actions with batch shape
            ``(episodes,)``. A module's parameters are named after it: ``policy.weight``.
        horizon: the most steps of an episode.
        episodes: how many episodes one run plays.
        bootstrap: V, a module from observations to ``(episodes,)`` numbers, such as that of a critic; the program
            does not train it.

    Returns:
        The program; it takes no arguments and returns `Episodes`. Its attribute ``rollout`` tells what it was made of.

    Raises:
        InvalidInput: ``horizon`` or ``episodes`` is less than one, or the environment cannot be made.
        InvalidProgram: when run, the policy's distribution does not fit the environment's actions.
        NonFinite: when run, an observation or a reward is NaN or infinite; names the step and the site.

    >>> import torch, pyro.distributions as dist, ppgrad
    >>> gain = torch.nn.Linear(2, 1, bias=False)
    >>> env = ppgrad.envs.LinearQuadratic()
    >>> program = ppgrad.rollout(env, lambda x: dist.Normal(gain(x), 0.1).to_event(1), horizon=5, episodes=8)
    >>> program().returns.shape
    torch.Size([8])
    >>> score = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(ppgrad.LeaveOneOut(over="episodes")))
    >>> list(ppgrad.gradient(score, program, seed=0))
    ['gain.weight']
    """
    for name, number in (("horizon", horizon), ("episodes", episodes)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InvalidInput(f"rollout({name}={number!r}): {name} is an integer from 1 up.")
    if bootstrap is not None and not isinstance(bootstrap, torch.nn.Module):
        raise InvalidInput(f"rollout(bootstrap={bootstrap!r}): write a torch.nn.Module from observations to numbers.")
    value = None if bootstrap is None else Frozen(bootstrap)
    _check_environment(env)
    if not callable(policy) or inspect.isclass(policy):
        raise InvalidInput(
            f"rollout(policy={policy!r}): write a function or a module from observations to a Pyro distribution."
        )
    space, differentiable = env.action_space, getattr(env, "differentiable", True)
    bounds_fit: list[bool] = []

    def program() -> Episodes:
        with _FiniteNumbers() as numbers, pyro.plate("episodes", episodes):
            play = env.play(episodes)
            device = next(iter(tree_leaves(play.observation))).device
            alive = torch.ones(episodes, dtype=torch.bool, device=device)
            terminated = torch.zeros_like(alive)
            returns, lengths = torch.zeros(2, episodes, device=device).unbind()
            observation = numbers.seen(play.observation, "The observation at step 0, which site 'a_0' reads,")
            for t in pyro.markov(range(horizon)):
                fn = policy(observation)
                _check_fit(env, space, fn, episodes, t)
                if not bounds_fit:
                    _check_bounds(env, space, fn)
                    bounds_fit.append(True)
                with poutine.mask(mask=alive):
                    infer = {"active": alive, "differentiable": differentiable}
                    action = policy_site(f"a_{t}", fn, context=observation, infer=infer)
                step = play.step(t, action, alive)
                earned = torch.where(alive, step.reward, torch.zeros_like(step.reward))
                numbers.seen(earned, f"The reward at step {t}, site 'r_{t}',")
                reward_site(f"r_{t}", earned, time=t)
                returns, lengths = returns + earned, lengths + alive
                seen = f"The observation after step {t}, which site 'a_{t + 1}' reads,"
                observation = numbers.seen(where_alive(alive, play.observation, observation), seen)
                terminated = terminated | (alive & step.terminated)
                cut_off = alive & ~step.terminated & (step.truncated | (t == horizon - 1))
                if value is not None and (t == horizon - 1 or (play.stops_early and cut_off.any())):
                    _earn_prediction(f"v_{t + 1}", value, observation, cut_off, t + 1)
                alive = alive & ~step.terminated & ~step.truncated
                if play.stops_early and not alive.any():
                    break
            final = play.final_reward()
            if final is not None:
                earned = torch.where(alive, final, torch.zeros_like(final))
                reward_site(f"r_{horizon}", earned, time=horizon)
                returns = returns + earned
            return Episodes(returns.detach(), lengths, terminated, ~terminated, observation)

    vars(program)["rollout"] = Rollout(env, policy, horizon, episodes)
    return program


def _earn_prediction(
    name: str, bootstrap: Callable[[Any], Tensor], observation: Any, cut_off: Tensor, time: int
) -> None:
    """What is expected to come after the end of episodes that were cut off."""
    expected = fit_to_signal(bootstrap(observation)[None, None], cut_off[None, None], name, "bootstrap")[0, 0]
    reward_site(name, torch.where(cut_off, expected, torch.zeros_like(expected)), time=time, predicted=True)


def _check_environment(env: Any) -> None:
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


def _check_fit(env: Playable, space: ActionSpace, fn: Any, episodes: int, step: int) -> None:
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


def _check_bounds(env: Playable, space: ActionSpace, fn: dist.TorchDistribution) -> None:
    """Raise if a policy's bounds stick out of the environment's, and warn if they leave actions out."""
    beyond = space.exceeded(fn)
    if beyond is not None:
        raise InvalidProgram(f"The policy's actions do not fit {env.name}: {beyond}.")
    narrow = space.narrows(fn)
    if narrow is not None:
        warnings.warn(f"The policy cannot take all actions of {env.name}: {narrow}.", UserWarning, stacklevel=3)


class _FiniteNumbers:
    """Checks what an environment says: on the host at once, on another device when the program ends or fails.

    So the host waits for the device once in a run, and not in each step.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[Tensor, Tensor, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._seen and not isinstance(error, NonFinite):
            if not _told(~torch.stack([is_finite for is_finite, _, _ in self._seen]).all()):
                return
            for is_finite, tensor, what in self._seen:
                if not bool(is_finite):
                    raise _nonfinite(tensor, what) from error

    def seen(self, numbers: Any, what: str) -> Any:
        """``numbers``, a tensor or a tree of them, unless one is NaN or infinite."""
        for tensor in [numbers] if isinstance(numbers, Tensor) else tree_leaves(numbers):
            if not tensor.is_floating_point():
                continue
            is_finite = torch.isfinite(tensor).all()
            if tensor.device.type != "cpu":
                self._seen.append((is_finite, tensor, what))
            elif _told(~is_finite):
                raise _nonfinite(tensor, what)
        return numbers


def _nonfinite(tensor: Tensor, what: str) -> NonFinite:
    bad = tensor.detach()[~torch.isfinite(tensor.detach())]
    return NonFinite(f"{what} is {float(bad[0]):g}. Keep the environment's numbers finite.")


def _told(condition: Tensor) -> bool:
    """Whether a condition holds, as far as can be told: not under vmap, where each lane has its own, nor in a trace."""
    if draws_up_front():
        return False
    try:
        return bool(condition)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return False
