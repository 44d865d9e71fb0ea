"""ppgrad.policy and ppgrad.reward leave in a trace what pyro.sample does; and how values are drawn for them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from scipy import stats

import ppgrad
from ppgrad import ExpectedReturn, ScoreFunction
from ppgrad.core.distributions import sampled
from ppgrad.core.garbage import OldObjectsKept

FIT, BROADCAST = torch.linspace(-1.0, 1.0, 6).reshape(2, 3), torch.zeros(3)


def no_plate(say: Callable[..., Any]) -> None:
    say("x", dist.Normal(0.0, 1.0))


def one_plate(say: Callable[..., Any]) -> None:
    with pyro.plate("inner", 3):
        say("fits", dist.Normal(FIT[0], 1.0))
        say("broadcasts", dist.Normal(0.0, 1.0))


def two_plates(say: Callable[..., Any]) -> None:
    with pyro.plate("outer", 2, dim=-2), pyro.plate("inner", 3, dim=-1):
        say("fits", dist.Normal(FIT, 1.0))
        say("misses a plate", dist.Normal(BROADCAST, 1.0))
        say("one for all", dist.Normal(torch.zeros(2, 1), 1.0))
        say("vectors", dist.Normal(torch.zeros(2, 3, 4), 1.0).to_event(1))


def a_gap(say: Callable[..., Any]) -> None:
    with pyro.plate("outer", 2, dim=-3):
        say("fits", dist.Normal(torch.zeros(2, 1, 1), 1.0))
        say("batch beside the plate", dist.Normal(torch.zeros(2, 1, 5), 1.0))
        say("broadcasts", dist.Normal(torch.zeros(5), 1.0))


def subsampled(say: Callable[..., Any]) -> None:
    with pyro.plate("data", 6, subsample_size=3), poutine.scale(scale=2.0), poutine.mask(mask=torch.tensor(True)):
        say("x", dist.Normal(BROADCAST, 1.0))


def sequential(say: Callable[..., Any]) -> None:
    inner = pyro.plate("inner", 3)
    for i in pyro.plate("steps", 2):
        with inner:
            say(f"x_{i}", dist.Normal(BROADCAST, 1.0))


def conditioned(say: Callable[..., Any]) -> None:
    with poutine.condition(data={"x": FIT}), pyro.plate("outer", 2), pyro.plate("inner", 3):
        say("x", dist.Normal(0.0, 1.0))


PROGRAMS = (no_plate, one_plate, two_plates, a_gap, subsampled, sequential, conditioned)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_policy_leaves_what_a_sample_does(program: Callable[..., None]) -> None:
    def nodes(say: Callable[..., Any]) -> dict[str, Any]:
        pyro.set_rng_seed(0)
        return poutine.trace(program).get_trace(say).nodes

    ours, pyros = nodes(ppgrad.policy), nodes(pyro.sample)
    assert list(ours) == list(pyros)
    for name, node in pyros.items():
        if node["type"] != "sample" or not hasattr(node["fn"], "batch_shape"):
            continue  # the subsample
        assert torch.equal(ours[name]["value"], node["value"]), name
        assert ours[name]["fn"].batch_shape == node["fn"].batch_shape
        assert ours[name]["fn"].event_shape == node["fn"].event_shape
        for key in ("is_observed", "scale", "mask", "cond_indep_stack", "done", "stop"):
            assert ours[name][key] == node[key], (name, key)


def test_what_fits_its_plates_is_not_expanded() -> None:
    fn = dist.Normal(FIT, 1.0)

    def program() -> None:
        with pyro.plate("outer", 2, dim=-2), pyro.plate("inner", 3, dim=-1):
            ppgrad.policy("x", fn)

    assert poutine.trace(program).get_trace().nodes["x"]["fn"].loc is fn.loc


@pytest.mark.parametrize("compile", [False, "aot_eager"])
@pytest.mark.parametrize("particles", [1, 3])
def test_a_distribution_made_outside_of_the_program_serves_every_run(particles: int, compile: bool | str) -> None:
    probs = torch.full((3,), 0.4, requires_grad=True)
    fn = dist.MaskedDistribution(dist.Bernoulli(probs), torch.tensor(True))

    def program(probs: torch.Tensor) -> None:
        with pyro.plate("n", 3):
            ppgrad.reward("r", (ppgrad.policy("z", fn) - 0.2) ** 2)

    objective = ExpectedReturn(ScoreFunction(), num_particles=particles, compile=compile)
    for _ in range(3):
        objective.loss_and_grads(program, None, probs)
    assert probs.grad is not None


def test_a_shape_that_does_not_fit_gets_pyros_error() -> None:
    def program() -> None:
        with pyro.plate("inner", 4):
            ppgrad.policy("x", dist.Normal(BROADCAST, 1.0))

    with pytest.raises(ValueError, match="Shape mismatch inside plate\\('inner'\\) at site x dim -1, 4 vs 3"):
        poutine.trace(program).get_trace()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("given", ["probs", "logits"])
def test_a_categorical_is_drawn_by_its_probabilities(given: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    probs = torch.tensor([0.125, 0.0, 0.5, 0.375], dtype=dtype)
    count = 20_000
    fn = dist.Categorical(**{given: probs if given == "probs" else probs.log()}, validate_args=False).expand([count])
    seen = np.bincount(sampled(fn), minlength=4)
    assert seen[1] == 0
    assert stats.chisquare(seen[[0, 2, 3]], count * np.array([0.125, 0.5, 0.375])).pvalue > 1e-6


def test_a_draw_carries_no_graph() -> None:
    logits = torch.zeros(3, requires_grad=True)
    assert not sampled(dist.Normal(logits, 1.0)).requires_grad
    assert not sampled(dist.Categorical(logits=logits)).requires_grad


@pytest.mark.parametrize("particles", [1, 4])
def test_probabilities_that_turn_negative_are_named(particles: int) -> None:
    probs = torch.ones(3, requires_grad=True)

    def program(probs: torch.Tensor) -> None:
        with pyro.plate("n", 100):
            ppgrad.reward("r", ppgrad.policy("a", dist.Categorical(probs.expand(100, 3))).float())

    objective = ExpectedReturn(ScoreFunction(), num_particles=particles)
    objective.loss_and_grads(program, None, probs)
    with torch.no_grad():
        probs.copy_(torch.tensor([0.5, -0.5, 1.0]))
    with pytest.raises((ValueError, ppgrad.NonFinite), match="probs"):
        objective.loss_and_grads(program, None, probs)


def test_the_collector_is_left_as_it_was() -> None:
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError), OldObjectsKept(), OldObjectsKept():
        print(1 / (gc.get_threshold()[2] <= before[2]))
    assert gc.get_threshold() == before


def test_young_cycles_are_freed_within_a_gradient() -> None:
    alive: list[weakref.ref[Any]] = []

    class Cyclic:
        def __init__(self) -> None:
            self.itself = self

    def program() -> None:
        for t in range(200):
            alive.append(weakref.ref(Cyclic()))
            ppgrad.reward(f"r_{t}", ppgrad.policy(f"a_{t}", dist.Normal(0.0, 1.0)))
        seen.append(sum(one() is not None for one in alive))

    seen: list[int] = []
    ExpectedReturn(ScoreFunction()).loss_and_grads(program, None)
    assert max(seen) < len(alive) / 4
