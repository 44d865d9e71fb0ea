"""Optimizers, schedules, and gradients that are shortened."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import ppgrad
from ppgrad import Critic, ExpectedReturn, Pathwise, ScoreFunction
from tests.train.programs import Policy, episode, fit, program


def test_an_optimizers_instance(tmp_path: Path) -> None:
    def train(steps: int, **options: Any) -> tuple[Tensor, float]:
        policy = Policy()
        adam = torch.optim.Adam(policy.parameters(), lr=0.05)
        schedule = lr_scheduler.StepLR(adam, step_size=3)
        history = fit(
            ExpectedReturn(), episode, args=(policy,), steps=steps, optimizer=adam, schedule=schedule, **options
        )
        return policy.linear.bias.detach(), history.final["train/learning_rate"]

    whole, rate = train(10)
    train(4, checkpoint=tmp_path / "run.pt")
    assert torch.equal(whole, train(10, checkpoint=tmp_path / "run.pt", resume=True)[0])
    assert rate == pytest.approx(0.05 * 0.1**3)


def test_schedules_by_name() -> None:
    shapes = {"constant": lambda x: 1.0, "linear": lambda x: 1 - x, "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2}
    for name, shape in shapes.items():
        pyro.clear_param_store()
        rates = fit(ExpectedReturn(), program, steps=10, learning_rate=0.1, schedule=name).metrics
        assert list(rates["train/learning_rate"]) == pytest.approx([0.1 * shape(step / 10) for step in range(10)])


def test_gradients_are_shortened_and_reported_whole() -> None:
    history = fit(
        ExpectedReturn(Pathwise()), program, steps=3, optimizer=torch.optim.SGD, learning_rate=1.0, max_grad_norm=0.25
    )
    assert (history.metrics["grad/norm"] > 1).all()
    assert pyro.param("loc").norm().item() == pytest.approx(0.75, rel=0.02)  # all three point the same way, nearly


class Steep(nn.Module):
    """A critic whose gradient is as large as its slope."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))
        self.slope = slope

    def forward(self, context: Tensor) -> Tensor:
        return (self.slope * self.weight * context).sum(-1)


@pytest.mark.parametrize("slope", [1e-3, 1.0, 1e4], ids=lambda slope: f"slope {slope:g}")
@pytest.mark.parametrize("apart", [False, True], ids=["one optimizer", "critic_optimizer"])
def test_gradients_of_critics_are_shortened_apart(slope: float, apart: bool) -> None:
    """Each of the two moves by its own norm, or by the largest, however large the other is."""

    def steep() -> None:
        loc = pyro.param("loc", torch.tensor(0.3))
        x = ppgrad.policy("x", dist.Normal(loc, 1.0), context=torch.ones(1))
        ppgrad.cost("c", (x - 1) ** 2)

    moved = []
    for norm in (None, 0.5):
        pyro.clear_param_store()
        critic = Steep(slope)
        sgd = torch.optim.SGD
        options: dict[str, Any] = {"critic_optimizer": functools.partial(sgd, lr=1.0)} if apart else {}
        objective = ExpectedReturn(ScoreFunction(Critic(critic)))
        fit(objective, steep, steps=1, optimizer=sgd, learning_rate=1.0, max_grad_norm=norm, **options)
        moved.append((abs(pyro.param("loc").item() - 0.3), abs(critic.weight.item() - 1.0)))
    whole, shortened = moved
    assert shortened == pytest.approx([min(0.5, length) for length in whole], rel=1e-3, abs=1e-6)
    assert whole[0] > 0.5
