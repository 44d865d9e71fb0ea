"""`rollout`: an environment and a policy as a Pyro program."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ppgrad.core import InvalidInput
from ppgrad.core.arguments import shown
from ppgrad.core.modules import Frozen, fit_to_signal
from ppgrad.envs.environment import where_alive
from ppgrad.envs.finite_numbers import FiniteNumbers
from ppgrad.envs.playable import Playable, check_bounds, check_environment, check_fit
from ppgrad.sites import policy as policy_site
from ppgrad.sites import reward as reward_site


class Rollout(NamedTuple):
    """What `rollout` made a program of; the program has it as its attribute ``rollout``."""

    env: Playable
    policy: Callable[[Any], dist.TorchDistribution]
    horizon: int
    episodes: int


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
        bootstrap: V, a module from observations to ``(episodes,)`` numbers, such as that of a critic: what is to come
            after the horizon, and after what the state there earns at ``r_{horizon}``. The program does not train it.

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
    _check_arguments(env, policy, horizon, episodes, bootstrap)
    value = None if bootstrap is None else Frozen(bootstrap)
    space, differentiable = env.action_space, getattr(env, "differentiable", True)
    bounds_fit: list[bool] = []

    def program() -> Episodes:
        with FiniteNumbers() as numbers, pyro.plate("episodes", episodes):
            play = env.play(episodes)
            device = next(iter(tree_leaves(play.observation))).device
            alive = torch.ones(episodes, dtype=torch.bool, device=device)
            terminated = torch.zeros_like(alive)
            returns, lengths = torch.zeros(2, episodes, device=device).unbind()
            observation = numbers.seen(play.observation, "The observation at step 0, which site 'a_0' reads,")
            for t in pyro.markov(range(horizon)):
                fn = policy(observation)
                check_fit(env, space, fn, episodes, t)
                if not bounds_fit:
                    check_bounds(env, space, fn)
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
                if value is not None:
                    cut_off = alive & ~step.terminated & (step.truncated | (t == horizon - 1))
                    if t == horizon - 1 or (play.stops_early and cut_off.any()):
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


def _check_arguments(env: Any, policy: Any, horizon: Any, episodes: Any, bootstrap: Any) -> None:
    for name, number in (("horizon", horizon), ("episodes", episodes)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InvalidInput(f"rollout({name}={number!r}): {name} is an integer from 1 up.")
    if bootstrap is not None and not isinstance(bootstrap, torch.nn.Module):
        raise InvalidInput(f"rollout(bootstrap={shown(bootstrap)}): write a torch.nn.Module, from observations to V.")
    check_environment(env)
    if not callable(policy) or inspect.isclass(policy):
        raise InvalidInput(
            f"rollout(policy={policy!r}): write a function or a module from observations to a Pyro distribution."
        )


def _earn_prediction(
    name: str, bootstrap: Callable[[Any], Tensor], observation: Any, cut_off: Tensor, time: int
) -> None:
    """What is expected to come after the end of episodes that were cut off."""
    expected = fit_to_signal(bootstrap(observation)[None, None], cut_off[None, None], name, "bootstrap")[0, 0]
    reward_site(name, torch.where(cut_off, expected, torch.zeros_like(expected)), time=time, predicted=True)
