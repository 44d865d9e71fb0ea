"""Policies whose actions fit the environment's space, and those that do not."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import (
    BetaPolicy,
    GaussianPolicy,
    InvalidProgram,
    Policy,
)
from ppgrad.envs import (
    BallWithWall,
    CartPole,
    Environment,
    GymnasiumEnv,
    LinearQuadratic,
    MountainCarContinuous,
    Pendulum,
)


@pytest.mark.parametrize(
    ("env", "policy", "words"),
    [
        (CartPole(), lambda x: dist.Normal(x[:, :1], 1.0).to_event(1), ["Normal", "CartPole", "Discrete(2)"]),
        (CartPole(), lambda x: dist.Categorical(logits=x), ["Categorical", "4 choices", "Discrete(2)"]),
        (CartPole(), lambda x: dist.OneHotCategorical(logits=x[:, :2]), ["OneHotCategorical", "(2,)", "()"]),
        (CartPole(), lambda x: dist.Poisson(x[:, 0].exp()), ["Poisson", "no last choice", "Discrete(2)"]),
        (CartPole(), lambda x: dist.Bernoulli(logits=x).to_event(1), ["Bernoulli", "(4,)"]),
        (Pendulum(), lambda x: dist.Categorical(logits=x), ["Categorical", "Pendulum", "integers"]),
        (Pendulum(), lambda x: dist.Normal(x[:, :1], 1.0), ["Normal", "Pendulum", ".to_event(1)"]),
        (Pendulum(), lambda x: dist.Normal(x[:, 0], 1.0), ["Normal", "event shape (1,)"]),
        (Pendulum(), lambda x: dist.Normal(x[:2, :1], 1.0).to_event(1), ["batch shape", "3 episodes"]),
        (Pendulum(), lambda x: x, ["Tensor", "Return a Pyro distribution"]),
    ],
)
def test_policy_that_does_not_fit(env: Environment, policy, words: list[str]) -> None:
    program = ppgrad.rollout(env, policy, 2, episodes=3)
    with pytest.raises(InvalidProgram) as caught:
        program()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "policy", "words"),
    [
        (Pendulum(), GaussianPolicy(3, 1, squash=True, bounds=(-20, 20)), ["(-20, 20)", "clipped", "bounds=(-2, 2)"]),
        (Pendulum(), BetaPolicy(3, 1, bounds=(-2.0, 3.0)), ["(-2, 3)", "bounds=(-2, 2)"]),
        (
            LinearQuadratic(),
            GaussianPolicy(2, 1, squash=True),
            None,
        ),
        (Pendulum(), BetaPolicy(3, 1, bounds=(-2, 2)), None),
        (BallWithWall(), BetaPolicy(2, 1, bounds=(0, 1.5708)), None),
    ],
)
def test_bounds_that_stick_out_are_refused(env: Environment, policy: Policy, words: list[str] | None) -> None:
    program = ppgrad.rollout(env, policy, 1, episodes=3)
    if words is None:
        program()
        return
    with pytest.raises(InvalidProgram) as caught:
        program()
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("policy", [GaussianPolicy(3, 1, squash=True), BetaPolicy(3, 1)], ids=["squashed", "beta"])
def test_bounds_that_leave_actions_out_are_told_once(policy: Policy) -> None:
    program = ppgrad.rollout(Pendulum(), policy, 3, episodes=3)
    with pytest.warns(UserWarning, match=r"cannot take all actions of Pendulum.*Write bounds=\(-2, 2\)"):
        program()
    program()


def test_actions_beyond_the_bounds_are_clipped_as_gymnasiums() -> None:
    def always(observation: Tensor) -> dist.Distribution:
        return dist.Delta(torch.full((len(observation), 1), 3.0)).to_event(1)

    with GymnasiumEnv("MountainCarContinuous-v0") as env:
        theirs = ppgrad.rollout(env, always, 10, episodes=2)().returns
    ours = ppgrad.rollout(MountainCarContinuous(), always, 10, episodes=2)().returns
    torch.testing.assert_close(ours, torch.full((2,), -1.0))
    torch.testing.assert_close(theirs, ours)


def test_policies_that_fit() -> None:
    for env, policy in (
        (CartPole(), lambda x: dist.Bernoulli(logits=x[:, 0])),
        (CartPole(), lambda x: dist.Categorical(logits=torch.zeros(2))),
        (Pendulum(), lambda x: dist.Beta(x[:, :1].exp(), 1.0).to_event(1)),
        (Pendulum(), lambda x: dist.MultivariateNormal(x[:, :1], torch.eye(1))),
    ):
        assert ppgrad.rollout(env, policy, 2, episodes=3)().lengths.tolist() == [2.0, 2.0, 2.0]
