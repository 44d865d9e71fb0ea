"""Optimizers, schedules, and gradients that are shortened."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from ppgrad import (
    ExpectedReturn,
    Pathwise,
)
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
