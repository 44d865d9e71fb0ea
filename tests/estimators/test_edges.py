"""At the edge of what floating-point numbers tell apart a gradient is refused by name, not wrong in silence."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import Enumerate, ExpectedReturn, LocalExpectation, MaxEntReturn, MuProp, ScoreFunction
from ppgrad.core import Estimator, NonFinite, Unsupported
from ppgrad.measurement import measure
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters

REPLICATES = 600


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("count", [1, 2])
def test_an_infinite_logit_of_yes_or_no_is_refused(sign: float, count: int) -> None:
    def program() -> None:
        logits = parameters({"l": [0.3, 0.4]})["l"].masked_fill(torch.tensor([False, True]), sign * math.inf)
        fn = dist.Bernoulli(logits=logits) if count == 1 else dist.Binomial(count, logits=logits)
        ppgrad.reward("r", ppgrad.policy("k", fn.to_event(1)).sum())

    with pytest.raises(NonFinite, match=r"'k' parameter 'logits' of B\w+ is -?inf.*100"):
        ppgrad.gradient(ExpectedReturn(LocalExpectation()), program)


@pytest.mark.parametrize("estimator", [ScoreFunction(), Enumerate(), LocalExpectation()], ids=repr)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_probability_at_its_edge_that_moves_is_refused(estimator: Estimator, value: float) -> None:
    def program() -> None:
        k = ppgrad.policy("k", dist.Bernoulli(parameters({"p": value})["p"]))
        ppgrad.reward("r", k)

    with pytest.raises(Unsupported, match=rf"'k' a probability of Bernoulli is exactly {value:g}"):
        ppgrad.gradient(ExpectedReturn(estimator), program)


def test_categories_of_probability_0_that_take_from_each_other_are_refused() -> None:
    def program() -> None:
        p = parameters({"p": 0.0})["p"]
        ppgrad.reward("r", ppgrad.policy("k", dist.Categorical(probs=torch.stack([p, -p, 1 + p]))).float())

    with pytest.raises(Unsupported, match="'k' a probability of Categorical is exactly 0"):
        ppgrad.gradient(ExpectedReturn(ScoreFunction()), program)


CUT_OFF = {
    "concentration0": lambda p: dist.Beta(2.0, p),
    "concentration1": lambda p: dist.Beta(p, 2.0),
    "Gamma.*concentration": lambda p: dist.Gamma(p, 1.0),
    "Chi2.*concentration": lambda p: dist.Chi2(p),
    "Dirichlet.*concentration": lambda p: dist.Dirichlet(torch.stack([p, 2 * p, p])),
}


@pytest.mark.parametrize("estimator", [ScoreFunction(), MuProp()], ids=repr)
@pytest.mark.parametrize("named", CUT_OFF)
def test_the_score_of_draws_that_are_cut_off_is_refused(named: str, estimator: Estimator) -> None:
    def program() -> None:
        x = ppgrad.policy("x", CUT_OFF[named](parameters({"p": 0.02})["p"]))
        ppgrad.reward("r", x.sum())

    with pytest.raises(Unsupported, match=f"(?s)cannot serve site 'x'.*{named}.*Pathwise"):
        ppgrad.gradient(ExpectedReturn(estimator), program)
    with pytest.raises(Unsupported, match=f"(?s)density of site 'x' is a cost.*{named}"):
        ppgrad.gradient(MaxEntReturn(ppgrad.Pathwise()), program)


@pytest.mark.parametrize("concentrations", [(0.5, 0.5), (2.0, 0.5)])
def test_a_beta_that_is_not_cut_off_has_a_score(concentrations: tuple[float, float]) -> None:
    def program() -> None:
        p = parameters({"a": concentrations[0], "b": concentrations[1]})
        ppgrad.reward("r", ppgrad.policy("x", dist.Beta(p["a"], p["b"])))

    a, b = concentrations
    exact_ones = {"a": torch.tensor(b / (a + b) ** 2), "b": torch.tensor(-a / (a + b) ** 2)}
    found = measure(ExpectedReturn(ScoreFunction()), program, replicates=REPLICATES, reference=exact_ones)
    assert all(bool(p > SUITE_FAILURE_RATE / 100) for p in found.p_value.values())
