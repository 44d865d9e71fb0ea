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


def of(value: Any, *draws: Any) -> torch.Tensor:
    """A cost of a known value that is computed from some draws."""
    return torch.as_tensor(value) + sum(0.0 * torch.as_tensor(draw) for draw in draws)


def test_only_what_was_computed_from_it() -> None:
    def model() -> None:
        p, draws = parameters({"logit": 0.0})["logit"], []
        for t in range(3):
            draws.append(ppgrad.policy(f"a_{t}", dist.Bernoulli(logits=p)))
            ppgrad.cost(f"own_{t}", of(10.0**t, draws[-1]))
            ppgrad.cost(f"all_{t}", of(10.0 ** (3 + t), *draws))
            ppgrad.cost(f"none_{t}", 10.0**6)

    found = signals(model)
    assert [float(found[f"a_{t}"].value) for t in range(3)] == [111_001, 110_010, 100_100]


def test_through_a_later_draw() -> None:
    def model() -> None:
        p = parameters({"logit": 0.0})["logit"]
        a = ppgrad.policy("a", dist.Bernoulli(logits=p))
        b = ppgrad.policy("b", dist.Bernoulli(logits=p + a))
        c = ppgrad.policy("c", dist.Bernoulli(logits=p))
        ppgrad.cost("of_b", of(1.0, b))
        ppgrad.cost("of_c", of(10.0, c))

    assert {name: float(signal.value) for name, signal in signals(model).items()} == {"a": 1, "b": 1, "c": 10}


def test_slices_of_a_plate() -> None:
    def model() -> None:
        p = parameters({"logit": 0.0})["logit"]
        with pyro.plate("n", 2):
            a = ppgrad.policy("a", dist.Bernoulli(logits=p))
            ppgrad.cost("inside", of([1.0, 10.0], a))
        ppgrad.cost("outside", of(100.0, a.sum()))

    found = signals(model)["a"]
    assert found.value.tolist() == [[[101.0, 110.0]]]
    assert found.within("n").tolist() == [[[1.0, 10.0]]]


def test_a_random_site_outside_couples_the_slices() -> None:
    def model() -> None:
        p, plate = parameters({"logit": 0.0})["logit"], pyro.plate("n", 2)
        with plate:
            a = ppgrad.policy("a", dist.Bernoulli(logits=p))
            ppgrad.cost("before", of([1.0, 2.0], a))
        w = ppgrad.policy("w", dist.Bernoulli(logits=p + a.sum()))
        with plate:
            b = ppgrad.policy("b", dist.Bernoulli(logits=p))
            ppgrad.cost("after", of([10.0, 20.0], w, b))

    found = signals(model)
    assert found["b"].value.tolist() == [[[10.0, 20.0]]]
    assert found["w"].value.reshape(()).tolist() == 30.0
    assert found["a"].value.tolist() == [[[31.0, 32.0]]]


def test_crossed_plates() -> None:
    def model() -> None:
        p = parameters({"logit": 0.0})["logit"]
        rows, columns = pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 3, dim=-1)
        with rows:
            r = ppgrad.policy("r", dist.Bernoulli(logits=p))
            with columns:
                ppgrad.cost("c", of([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], r))

    assert signals(model)["r"].value.tolist() == [[[[6.0], [15.0]]]]


def test_iterations_are_apart_where_no_value_leads_from_one_to_the_other() -> None:
    def model() -> None:
        p, draws = parameters({"logit": 0.0})["logit"], []
        for i in range(2):
            draws.append(ppgrad.policy(f"a_{i}", dist.Bernoulli(logits=p)))
            ppgrad.cost(f"c_{i}", of(10.0**i, draws[-1]))
        ppgrad.cost("end", of(100.0, *draws))

    assert {name: float(signal.value) for name, signal in signals(model).items()} == {"a_0": 101, "a_1": 110}


def test_sequential_plates_of_a_program_whose_values_leave_torch() -> None:
    def model() -> None:
        p = parameters({"logit": 0.0})["logit"]
        ppgrad.policy("start", dist.Bernoulli(logits=p)).item()
        for i in pyro.plate("i", 2):
            ppgrad.policy(f"a_{i}", dist.Bernoulli(logits=p))
            ppgrad.cost(f"c_{i}", 10.0**i)
            for j in pyro.plate(f"j_{i}", 2):
                ppgrad.policy(f"b_{i}_{j}", dist.Bernoulli(logits=p))
                ppgrad.cost(f"c_{i}_{j}", 10.0 ** (2 + 2 * i + j))
        ppgrad.cost("end", 10.0**6)

    found = {name: float(signal.value) for name, signal in signals(model).items()}
    assert found["start"] == 1_111_111
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


@pytest.mark.filterwarnings("ignore:Plate 'n_:ppgrad.CoupledSlices")
@pytest.mark.parametrize("kind", ["markov", "plate", "sequential", "coupled", "unseen"])
def test_additions_are_linear_in_the_number_of_sites(kind: str) -> None:
    def model(steps: int) -> None:
        p, plate, state = parameters({"logit": 0.0})["logit"], pyro.plate("n", 2), torch.zeros(())
        for t in pyro.plate("t", steps) if kind == "sequential" else range(steps):
            with {"plate": plate, "coupled": pyro.plate(f"n_{t}", 2)}.get(kind, nullcontext()):
                action = ppgrad.policy(f"a_{t}", dist.Bernoulli(logits=p))
                state = state + (float(action) if kind == "unseen" else action.sum() if kind == "coupled" else action)
                ppgrad.cost(f"c_{t}", 1.0 + state)

    def additions(steps: int) -> int:
        objective = ExpectedReturn(ScoreFunction())
        executor = objective.prepare(lambda: model(steps)).executor
        with Additions() as counted:
            objective.estimate(executor)
        return counted.count

    assert additions(200) <= 2.05 * additions(100)
