"""Estimators that say they are biased: the bias is found, and shown."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    SPSA,
    EvolutionStrategies,
    ExpectedReturn,
    FiniteDifference,
    GumbelRao,
    GumbelSoftmax,
    ReinMax,
    ScoreFunction,
    StraightThrough,
    Unsupported,
    compare,
    exact_gradient,
    measure,
)
from ppgrad.core import Estimator
from ppgrad.estimators import all_estimators
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters

# Steps at which the bias shows; those of the examples hide it behind the noise.
COARSE = {each: each(2.0) for each in (FiniteDifference, SPSA, EvolutionStrategies)}
BIASED = [
    example
    for member in all_estimators()
    if member.facts.biased
    for example in ([COARSE[member]] if member in COARSE else member.examples())
]
FAILURE_RATE = SUITE_FAILURE_RATE / 100


def discrete() -> None:
    p = parameters({"phi": 0.8, "theta": [0.3, -0.2, 0.5]})
    b = ppgrad.policy("b", dist.Bernoulli(logits=p["phi"]))
    z = ppgrad.policy("z", dist.OneHotCategorical(logits=p["theta"]))
    ppgrad.cost("f", (1.5 * b + z @ torch.tensor([1.0, 2.0, -1.0])) ** 4)


def continuous() -> None:
    p = parameters({"mu": 0.3, "sigma": 0.6})
    ppgrad.cost("f", torch.sin(4 * ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"]))))


@pytest.mark.parametrize("estimator", BIASED, ids=repr)
def test_a_declared_bias_is_found(estimator: Estimator) -> None:
    objective = ExpectedReturn(estimator)
    try:
        objective.prepare(discrete)
        program = discrete
    except Unsupported:
        program = continuous
    reference = exact_gradient(ExpectedReturn(ScoreFunction()), program)
    result = measure(objective, program, replicates=20_000, reference=reference)
    assert min(float(p.min()) for p in result.p_value.values()) < FAILURE_RATE
    assert estimator.facts.order, "says how its bias behaves"


def test_the_comparison_says_biased() -> None:
    comparison = compare(
        {"score": ExpectedReturn(ScoreFunction()), "straight-through": ExpectedReturn(StraightThrough())},
        discrete,
        replicates=500,
    )
    assert list(comparison.totals()["biased"]) == ["", "biased"]


def test_reinmax_is_exact_for_quadratics() -> None:
    def program() -> None:
        p = parameters({"phi": [0.8, -0.4], "theta": [0.3, -0.2, 0.5]})
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["phi"]).to_event(1))
        z = ppgrad.policy("z", dist.OneHotCategorical(logits=p["theta"]))
        ppgrad.cost("f", (b.sum() + z @ torch.tensor([1.0, 2.0, -1.0]) - 0.4) ** 2)

    reference = exact_gradient(ExpectedReturn(), program)
    result = measure(ExpectedReturn(ReinMax()), program, replicates=100_000, reference=reference)
    assert min(float(p.min()) for p in result.p_value.values()) > FAILURE_RATE
    straight = measure(ExpectedReturn(StraightThrough()), program, replicates=20_000, reference=reference)
    assert min(float(p.min()) for p in straight.p_value.values()) < FAILURE_RATE


def test_gumbel_rao_keeps_the_mean_of_hard_gumbel_softmax_with_less_variance() -> None:
    hard = measure(ExpectedReturn(GumbelSoftmax(1.0, hard=True)), discrete, replicates=40_000)
    rao = measure(ExpectedReturn(GumbelRao(1.0, 20)), discrete, replicates=40_000, seed=1, reference=hard.mean)
    for name in hard.mean:
        error = (hard.mcse[name] ** 2 + rao.mcse[name] ** 2).sqrt()
        assert bool(((hard.mean[name] - rao.mean[name]).abs() < 6 * error).all())
        assert bool((rao.variance[name] < hard.variance[name]).all())


def test_the_value_is_hard_where_it_is_said_to_be() -> None:
    seen = []

    def program() -> None:
        p = parameters({"phi": [0.8, -0.4]})
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["phi"]).to_event(1))
        seen.append(b.detach().clone())
        ppgrad.cost("f", b.sum() ** 2)

    for estimator in (GumbelSoftmax(hard=True), StraightThrough(), GumbelRao(), ReinMax()):
        seen.clear()
        ppgrad.gradient(ExpectedReturn(estimator), program, seed=0)
        assert all(bool(((value == 0) | (value == 1)).all()) for value in seen)
    seen.clear()
    ppgrad.gradient(ExpectedReturn(GumbelSoftmax()), program, seed=0)
    assert any(bool(((value > 0) & (value < 1)).all()) for value in seen)


@pytest.mark.parametrize("estimator", [GumbelSoftmax(), StraightThrough(), GumbelRao(), ReinMax()], ids=repr)
def test_a_program_that_indexes_is_refused(estimator: Estimator) -> None:
    def program() -> None:
        p = parameters({"phi": 0.8})
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["phi"]))
        ppgrad.reward("r", torch.tensor([1.0, 2.0])[b])

    with pytest.raises(Unsupported, match=r"site 'b'.*relaxed value(.|\n)*LocalExpectation"):
        ppgrad.gradient(ExpectedReturn(estimator), program, seed=0)


def test_a_categorical_index_is_refused_with_the_mend() -> None:
    def program() -> None:
        p = parameters({"theta": [0.3, -0.2, 0.5]})
        ppgrad.reward("r", ppgrad.policy("z", dist.Categorical(logits=p["theta"])) * 1.0)

    with pytest.raises(Unsupported, match="write OneHotCategorical"):
        ppgrad.gradient(ExpectedReturn(GumbelSoftmax()), program, seed=0)
