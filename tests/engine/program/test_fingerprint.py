"""What has changed is run, and compiled, anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ELBO, Enumerate, ExpectedReturn, Pathwise, ScoreFunction

COMPILE = "aot_eager"
Change = Iterator[tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]]


def earning(value: Any) -> None:
    """A program's body: a draw that earns nothing, and a reward."""
    ppgrad.policy("x", dist.Normal(torch.ones(()), 1.0))
    ppgrad.reward("r", torch.as_tensor(value, dtype=torch.float32))


def arguments(*many: Any) -> Change:
    def program(value: Any) -> None:
        earning(value() if callable(value) else sum(value) if isinstance(value, range) else value)

    for one in many:
        yield program, (one,), {}


def ranges() -> Change:
    return arguments(range(3), range(5))


def functions() -> Change:
    return arguments(lambda: 1.0, lambda: 2.0)


def closures_of_one_code() -> Change:
    return arguments(*(lambda number=number: number for number in (1.0, 2.0)))


def types_of_equal_numbers() -> Change:
    def program(value: Any) -> None:
        earning(2.0 if isinstance(value, float) else 3.0)

    for one in (1, 1.0):
        yield program, (one,), {}


def names_of_keywords() -> Change:
    def program(**named: torch.Tensor) -> None:
        earning(named["a"] if "a" in named else -named["b"])

    for name in "ab":
        yield program, (), {name: torch.ones(())}


def a_closed_over_function() -> Change:
    helper = float

    def program() -> None:
        earning(helper("22"))

    yield program, (), {}

    helper = len
    yield program, (), {}


def an_array_changed_in_place() -> Change:
    array = np.ones(3)

    def program() -> None:
        earning(array.sum())

    yield program, (), {}
    array[0] = 7.0
    yield program, (), {}


def a_set_changed_in_place() -> Change:
    chosen = {1.0}

    def program() -> None:
        earning(sum(chosen))

    yield program, (), {}
    chosen.add(2.0)
    yield program, (), {}


def an_attribute_of_a_module() -> Change:
    module = torch.nn.Sequential(torch.nn.Identity())
    for module[0].gain in (1.0, 2.0):
        yield (lambda module: earning(module[0].gain)), (module,), {}


def an_attribute_of_an_attribute() -> Change:
    outer = SimpleNamespace(inner=SimpleNamespace(gain=1.0))

    def program() -> None:
        earning(outer.inner.gain)

    for outer.inner.gain in (1.0, 2.0):
        yield program, (), {}


def a_helpers_helper() -> Change:
    number = 1.0

    def inner() -> float:
        return number

    def helper() -> float:
        return inner()

    def program() -> None:
        earning(helper())

    for number in (1.0, 2.0):  # noqa: B007
        yield program, (), {}


def a_default() -> Change:
    def program(value: float = 1.0) -> None:
        earning(value)

    yield program, (), {}
    program.__defaults__ = (2.0,)
    yield program, (), {}


CHANGES = (
    ranges, functions, closures_of_one_code, types_of_equal_numbers, names_of_keywords, a_closed_over_function,
    an_array_changed_in_place, a_set_changed_in_place, an_attribute_of_a_module, an_attribute_of_an_attribute,
    a_helpers_helper, a_default,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_compiled_program_reads_what_changed(change: Callable[[], Change]) -> None:
    compiled, eager = ExpectedReturn(ScoreFunction(), compile=COMPILE), ExpectedReturn(ScoreFunction())
    losses = []
    for program, args, kwargs in change():
        losses.append(compiled.loss(program, None, *args, **kwargs))
        assert losses[-1] == eager.loss(program, None, *args, **kwargs)
    assert len(set(losses)) == 2


def test_what_did_not_change_is_compiled_once() -> None:
    @dataclass
    class Settings:
        gain: float

    def program(settings: Settings, act: Callable[[float], float]) -> None:
        earning(act(settings.gain))

    objective = ExpectedReturn(ScoreFunction(), compile=COMPILE)
    for _ in range(3):
        objective.loss(program, None, Settings(2.0), lambda gain: 2 * gain)
        objective.loss(program, None, Settings(2.0), act=abs)
    assert len(objective.graphs) == 2


def test_settings_of_the_objective_are_read() -> None:
    weight = torch.ones((), requires_grad=True)

    def program(weight: torch.Tensor) -> None:
        ppgrad.policy("x", dist.Bernoulli(logits=weight))
        ppgrad.reward("r_0", weight)
        ppgrad.reward("r_1", weight)

    for compile in (False, COMPILE):
        objective = ExpectedReturn(ScoreFunction(), compile=compile)
        assert objective.loss(program, None, weight) == -2.0
        objective.discount = 0.5
        assert objective.loss(program, None, weight) == -1.5
        objective.num_particles = 4
        assert ppgrad.gradient(objective, program, args=(weight,), seed=0)["weight"] == pytest.approx(1.5, abs=3.0)
        objective.estimator = Enumerate()
        assert float(ppgrad.gradient(objective, program, args=(weight,), seed=0)["weight"]) == pytest.approx(1.5)


def test_the_choice_of_sites_is_read() -> None:
    def model() -> None:
        ppgrad.policy("x", dist.Normal(torch.tensor(0.0), 1.0))

    objective = ELBO(sites={"x": Pathwise()})
    first = objective.prepare(model, model)
    objective.sites = {"x": ScoreFunction()}
    assert objective.prepare(model, model) is not first


def test_autocast_is_read() -> None:
    layer = torch.nn.Linear(3, 3)

    def program(layer: torch.nn.Linear, x: torch.Tensor) -> None:
        seen.append(layer(x).dtype)
        earning(layer(x).sum())

    seen: list[torch.dtype] = []
    objective = ExpectedReturn(ScoreFunction(), compile=COMPILE)
    objective.loss(program, None, layer, torch.ones(3))
    assert set(seen) == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        objective.loss(program, None, layer, torch.ones(3))
    assert set(seen) == {torch.float32, torch.bfloat16}
