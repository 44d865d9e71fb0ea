"""Credit: what is left out of a signal, and that the work is linear."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ppgrad
from ppgrad import ExpectedReturn, ScoreFunction
from ppgrad.core import Signal
from ppgrad.testing.problems import parameters


def signals(model: Callable[[], None]) -> dict[str, Signal]:
    objective = ExpectedReturn(ScoreFunction())
    estimate = objective.estimate(objective.prepare(model).executor)
    return {draw.name: signal for draw, signal, _ in estimate.served}


def test_only_what_comes_after() -> None:
    def model() -> None:
        p = parameters({"logit": 0.0})["logit"]
        for t in range(3):
            ppgrad.policy(f"a_{t}", dist.Bernoulli(logits=p))
            ppgrad.cost(f"c_{t}", 10.0**t)

    found = signals(model)
    assert [float(found[f"a_{t}"].value) for t in range(3)] == [111.0, 110.0, 100.0]


def test_slices_of_a_plate() -> None:
    def model() -> None:
        p = parameters({"logit": 0.0})["logit"]
        with pyro.plate("n", 2):
            ppgrad.policy("a", dist.Bernoulli(logits=p))
            ppgrad.cost("inside", torch.tensor([1.0, 10.0]))
        ppgrad.cost("outside", 100.0)

    found = signals(model)["a"]
    assert found.value.tolist() == [[[101.0, 110.0]]]
    assert found.within("n").tolist() == [[[1.0, 10.0]]]


def test_a_random_site_outside_couples_the_slices() -> None:
    def model() -> None:
        p, plate = parameters({"logit": 0.0})["logit"], pyro.plate("n", 2)
        with plate:
            ppgrad.policy("a", dist.Bernoulli(logits=p))
            ppgrad.cost("before", torch.tensor([1.0, 2.0]))
        ppgrad.policy("w", dist.Bernoulli(logits=p))
        with plate:
            ppgrad.policy("b", dist.Bernoulli(logits=p))
            ppgrad.cost("after", torch.tensor([10.0, 20.0]))

    found = signals(model)
    assert found["b"].value.tolist() == [[[10.0, 20.0]]]
    assert found["w"].value.reshape(()).tolist() == 30.0
    assert found["a"].value.tolist() == [[[31.0, 32.0]]]


def test_crossed_plates() -> None:
    def model() -> None:
        p = parameters({"logit": 0.0})["logit"]
        rows, columns = pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 3, dim=-1)
        with rows:
            ppgrad.policy("r", dist.Bernoulli(logits=p))
            with columns:
                ppgrad.cost("c", torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))

    assert signals(model)["r"].value.tolist() == [[[[6.0], [15.0]]]]


def test_sequential_plates() -> None:
    def model() -> None:
        p = parameters({"logit": 0.0})["logit"]
        for i in pyro.plate("i", 2):
            ppgrad.policy(f"a_{i}", dist.Bernoulli(logits=p))
            ppgrad.cost(f"c_{i}", 10.0**i)
            for j in pyro.plate(f"j_{i}", 2):
                ppgrad.policy(f"b_{i}_{j}", dist.Bernoulli(logits=p))
                ppgrad.cost(f"c_{i}_{j}", 10.0 ** (2 + 2 * i + j))
        ppgrad.cost("end", 10.0**6)

    found = {name: float(signal.value) for name, signal in signals(model).items()}
    assert found["a_0"] == 1_001_101
    assert found["a_1"] == 1_110_010
    assert [found[f"b_{i}_{j}"] for i in range(2) for j in range(2)] == [1_000_100, 1_001_000, 1_010_000, 1_100_000]


class Additions(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (torch.ops.aten.add, torch.ops.aten.sum)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["markov", "plate", "sequential", "coupled"])
def test_additions_are_linear_in_the_number_of_sites(kind: str) -> None:
    def model(steps: int) -> None:
        p, plate = parameters({"logit": 0.0})["logit"], pyro.plate("n", 2)
        for t in pyro.plate("t", steps) if kind == "sequential" else range(steps):
            with {"plate": plate, "coupled": pyro.plate(f"n_{t}", 2)}.get(kind, nullcontext()):
                ppgrad.policy(f"a_{t}", dist.Bernoulli(logits=p))
                ppgrad.cost(f"c_{t}", 1.0)

    def additions(steps: int) -> int:
        objective = ExpectedReturn(ScoreFunction())
        executor = objective.prepare(lambda: model(steps)).executor
        with Additions() as counted:
            objective.estimate(executor)
        return counted.count

    assert additions(200) <= 2.05 * additions(100)
