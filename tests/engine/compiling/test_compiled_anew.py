"""What a compiled gradient reads at every call, and what it is compiled anew for."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    ExpectedReturn,
    MovingAverage,
    Pathwise,
    ScoreFunction,
)
from tests.engine.compiling.programs import TRACED, program


def test_one_graph_serves_every_value_of_parameters_data_and_memory() -> None:
    objective = ExpectedReturn(ScoreFunction(MovingAverage()), compile=TRACED)

    def scaled(x: Tensor) -> None:
        program(x)

    for step in range(4):
        objective.loss_and_grads(scaled, None, torch.tensor(float(step)))
    assert float(objective.memory["z"]["count"]) == 4
    assert len(objective.graphs) == 2  # before there was an average, and since


def test_a_tensor_argument_is_read_at_every_call() -> None:
    objective = ExpectedReturn(Pathwise(), compile=TRACED)

    def scaled(x: Tensor) -> None:
        program(x)

    one, two = (ppgrad.gradient(objective, scaled, args=(torch.tensor(x),), seed=0)["loc"] for x in (1.0, 2.0))
    assert two == pytest.approx(2 * one)


@pytest.mark.parametrize("where", ["argument", "closure", "keyword"])
def test_another_number_compiles_anew(where: str) -> None:
    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    factor = 1.0

    def closed() -> None:
        program(factor)

    def gradient() -> Tensor:
        arguments: dict[str, Any] = {"argument": {"args": (factor,)}, "keyword": {"kwargs": {"x": factor}}}.get(
            where, {}
        )
        return ppgrad.gradient(objective, closed if where == "closure" else program, **arguments, seed=0)["loc"]

    one = gradient()
    factor = 2.0
    assert gradient() == pytest.approx(2 * one)


def test_a_number_that_goes_on_changing_is_pointed_at(caplog: pytest.LogCaptureFixture) -> None:
    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    for step in range(9):
        ppgrad.gradient(objective, program, args=(float(step),), seed=0)
    assert sum("has been compiled 8 times" in record.message for record in caplog.records) == 1


def test_another_shape_compiles_anew() -> None:
    objective = ExpectedReturn(Pathwise(), compile=TRACED)

    def batch(x: Tensor) -> None:
        program(x.sum())

    for size in (2, 3):
        found = ppgrad.gradient(objective, batch, args=(torch.ones(size),), seed=0)["loc"]
        assert found == pytest.approx(size * ppgrad.gradient(objective, program, seed=0)["loc"])


def test_a_held_tensor_that_changes_in_place_is_read_anew() -> None:
    factor = torch.tensor(1.0)
    objective = ExpectedReturn(Pathwise(), compile=TRACED)

    def held() -> None:
        program(factor)

    one = ppgrad.gradient(objective, held, seed=0)["loc"]
    factor.fill_(2.0)
    assert ppgrad.gradient(objective, held, seed=0)["loc"] == pytest.approx(2 * one)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self) -> None:
        mean = self.layers(torch.ones(1))[0]
        ppgrad.cost("f", ppgrad.policy("z", dist.Normal(mean, 1.0)) ** 2)


def test_a_module_in_another_mode_compiles_anew() -> None:
    model = Dropping()
    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    training = ppgrad.gradient(objective, model, seed=0)
    model.eval()
    evaluating = ppgrad.gradient(objective, model, seed=0)
    assert not any(torch.equal(training[name], evaluating[name]) for name in training)
    eager = ppgrad.gradient(ExpectedReturn(Pathwise()), model, seed=0)
    assert set(evaluating) == set(eager)
