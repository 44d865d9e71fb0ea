"""`ExpectedReturn`: guides, factors, discounts."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest

import ppgrad
from ppgrad import (
    ExpectedReturn,
    ScoreFunction,
)
from ppgrad.testing.problems import parameters


def test_expected_return_with_a_guide() -> None:
    """The guide draws the action; a transition of the model is drawn by the model."""

    def program() -> None:
        action = ppgrad.policy("a", dist.Normal(0.0, 1.0))
        state = pyro.sample("s", dist.Normal(action, 0.1))
        ppgrad.cost("f", (state - 2) ** 2)

    def guide() -> None:
        pyro.sample("a", dist.Normal(parameters({"mu": 0.5})["mu"], 1.0))

    result = ppgrad.measure(ExpectedReturn(ScoreFunction()), program, guide, replicates=4000)
    assert result.reference["mu"] == pytest.approx(3.0, rel=1e-3)
    assert result.p_value["mu"] > 1e-7


def test_a_factor_is_not_left_out_in_silence() -> None:
    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(parameters({"mu": 0.5})["mu"], 1.0))
        ppgrad.reward("r", x)
        pyro.factor("f", x)

    with pytest.warns(UserWarning, match="factor 'f'"):
        ppgrad.gradient(ExpectedReturn(), program, seed=0)


def test_discount_times() -> None:
    def program() -> None:
        ppgrad.policy("x", dist.Normal(parameters({"mu": 0.5})["mu"], 1.0))
        ppgrad.reward("r_0", 1.0)
        ppgrad.reward("r_1", 1.0)
        ppgrad.reward("bonus", 1.0, time=0)
        ppgrad.reward("r_2", 1.0)
        for i in pyro.plate("i", 2):
            ppgrad.reward(f"s_{i}", 1.0)

    with pytest.warns(ppgrad.NoGradientPath):
        assert ExpectedReturn(discount=0.5).loss(program, None) == -(1 + 0.5 + 1 + 0.25 + 2)
