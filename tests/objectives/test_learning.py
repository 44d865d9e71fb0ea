"""What an objective learns on the way: critics and moving averages."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import nn

import ppgrad
from ppgrad import (
    Critic,
    ExpectedReturn,
    MovingAverage,
    ScoreFunction,
)
from ppgrad.testing.problems import parameters
from tests.objectives.programs import Policy, episode


def test_a_critic_trains_along() -> None:
    actor, critic = Policy(), nn.Linear(1, 1)
    objective = ExpectedReturn(ScoreFunction(Critic(critic)))
    loss = objective(episode)
    assert set(critic.parameters()) <= set(loss.parameters())
    svi = SVI(episode, None, pyro.optim.Adam({"lr": 0.03}), loss=objective)
    for _ in range(600):
        svi.step(actor)
    assert actor(torch.ones(1, 1)).mean.item() == pytest.approx(3.0, abs=0.5)
    value = critic(torch.ones(1)).item()
    assert value == pytest.approx(-0.25, abs=0.2)  # the return at the optimum is −0.5²
    trained = {name for name, _ in pyro.get_param_store().named_parameters()}
    assert any("critic" in name for name in trained)
    assert not any("critic" in name for name in ppgrad.gradient(objective, episode, args=(actor,), seed=0))


def test_a_moving_average_uses_the_value_from_before_and_is_debiased() -> None:
    def program(value: float) -> None:
        k = ppgrad.policy("k", dist.Bernoulli(logits=parameters({"l": 0.0})["l"]))
        ppgrad.cost("f", value + 0.0 * k)

    objective = ExpectedReturn(ScoreFunction(MovingAverage(0.5)))
    seen = []
    for value in (8.0, 4.0, 0.0):
        estimate = objective.estimate(objective.prepare(program, None, (value,)).executor)
        draw, signal, _ = estimate.served[0]
        memory = objective.memory.get("k", {})
        seen.append(float(objective.estimator.baseline.predict(draw, signal, memory)))
        objective.loss_and_grads(program, None, value)
    assert seen == pytest.approx([0.0, 8.0, (0.25 * 8 + 0.5 * 4) / 0.75])
    objective.loss(program, None, 100.0)
    ppgrad.gradient(objective, program, args=(100.0,))
    assert float(objective.memory["k"]["count"]) == 3


def test_a_second_critic_is_trained_as_the_first() -> None:
    ends = []
    for _ in range(2):  # the param store still knows the first one
        torch.manual_seed(0)
        actor, critic = Policy(), nn.Linear(1, 1)
        before = critic.bias.detach().clone()
        svi = SVI(episode, None, pyro.optim.Adam({"lr": 0.05}), loss=ExpectedReturn(ScoreFunction(Critic(critic))))
        for _ in range(3):
            svi.step(actor)
        assert not torch.equal(critic.bias, before)
        ends.append(critic.bias.detach())
    assert torch.equal(*ends)
