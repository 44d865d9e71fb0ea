"""ppgrad.policy and ppgrad.reward leave in a trace what pyro.sample does; and how values are drawn for them."""

from __future__ import annotations

import gc
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
from ppgrad.core.collection import uncollected
from ppgrad.core.distributions import sampled

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

    assert poutine.trace(program).get_trace().nodes["x"]["fn"] is fn


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


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ZeroDivisionError), uncollected():
            print(1 / int(gc.isenabled()))
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
