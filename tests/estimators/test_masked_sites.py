"""A mask leaves a draw out of a bound; how the draw was made, and by how many elements, stays."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import DisARM, Enumerate, Estimator, ExpectedReturn, FiniteDifference, LocalExpectation, ScoreFunction
from ppgrad.measurement import measure
from ppgrad.testing import SUITE_FAILURE_RATE, all_problems
from ppgrad.testing.problems import parameters

FAILURE_RATE = SUITE_FAILURE_RATE / 100


@pytest.mark.parametrize("estimator", [None, ScoreFunction(), LocalExpectation(), DisARM(), Enumerate()], ids=repr)
def test_the_default_estimator_serves_a_draw_that_is_masked_out(estimator: Estimator | None) -> None:
    problem = all_problems()["masked_out"]
    assert problem.exact is not None
    found = measure(ExpectedReturn(estimator), problem.model, replicates=20_000, reference=problem.exact())
    rounding = abs(found.bias["logits"]) < 1e-5
    assert bool(((found.p_value["logits"] > FAILURE_RATE) | rounding).all())


@pytest.mark.parametrize("mask", [True, False, [True, False]], ids=str)
def test_finite_differences_go_element_by_element_under_a_mask(mask: bool | list[bool]) -> None:
    def program() -> None:
        location = parameters({"m": [[0.3, -0.4], [0.5, 0.9]]})["m"]
        rows = dist.Normal(location, 0.7).to_event(1).mask(torch.tensor(mask) if isinstance(mask, list) else mask)
        x = ppgrad.policy("x", rows.to_event(1))
        ppgrad.cost("f", x.sum((-1, -2)) ** 2)

    exact = {"m": torch.full((2, 2), -2 * 1.3)}
    found = measure(ExpectedReturn(FiniteDifference()), program, replicates=5000, reference=exact)
    assert bool((found.p_value["m"] > FAILURE_RATE).all())
