"""Arguments of `rollout` that are none, and numbers that are NaN."""

from __future__ import annotations

import gymnasium
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    ExpectedReturn,
    InvalidInput,
    NonFinite,
    Pathwise,
)
from ppgrad.envs import (
    Box,
    CartPole,
    Environment,
    Pendulum,
)
from tests.envs.programs import Logits


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"horizon": 0}, ["horizon=0", "from 1 up"]),
        ({"horizon": 2.5}, ["horizon=2.5"]),
        ({"horizon": True}, ["horizon=True"]),
        ({"horizon": 3, "episodes": 0}, ["episodes=0"]),
        ({"horizon": 3, "policy": "greedy"}, ["policy='greedy'", "Pyro distribution"]),
        ({"horizon": 3, "policy": ppgrad.GaussianPolicy}, ["GaussianPolicy", "a function or a module"]),
        ({"horizon": 3, "env": "CartPole-v1"}, ["GymnasiumEnv('CartPole-v1')"]),
        ({"horizon": 3, "env": Pendulum}, ["Pendulum", "a class", "Write Pendulum(…)"]),
        ({"horizon": 3, "env": 3}, ["rollout(3, …)", "GymnasiumEnv"]),
        ({"horizon": 3, "env": gymnasium.make("CartPole-v1")}, ["Write GymnasiumEnv('CartPole-v1')"]),
    ],
)
def test_arguments(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        ppgrad.rollout(**{"env": CartPole(), "policy": Logits(), **arguments})  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


class Breaks(Environment):
    """Something turns NaN in the third step."""

    action_space = Box((1,))

    def __init__(self, what: str):
        self.what = what

    def initial(self, episodes: int) -> Tensor:
        return torch.zeros(episodes, 1)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        return state + 1

    def observation(self, state: Tensor) -> Tensor:
        return torch.where((state >= 3) & (self.what == "observation"), torch.nan, state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        bad = (next_state >= 3) & (self.what == "reward")
        return torch.where(bad, torch.nan, action)[..., 0]


@pytest.mark.parametrize(
    ("what", "words"),
    [("reward", ["reward", "step 2", "'r_2'", "nan"]), ("observation", ["observation", "step 2", "'a_3'", "nan"])],
)
def test_nan_is_named(what: str, words: list[str]) -> None:
    policy = nn.Linear(1, 1)
    program = ppgrad.rollout(Breaks(what), lambda x: dist.Normal(policy(x), 1.0).to_event(1), 5, episodes=2)
    objective = ExpectedReturn(Pathwise())
    for call in (
        program,
        lambda: ppgrad.gradient(objective, program, seed=0),
        lambda: ppgrad.measure(objective, program, replicates=4),
        lambda: objective.loss(program, None),
    ):
        with pytest.raises(NonFinite) as caught:
            call()
        assert all(word in str(caught.value) for word in words), str(caught.value)
        assert "\n" not in str(caught.value)
