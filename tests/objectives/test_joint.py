"""Objectives of several runs: the worst share of the returns, the best of k."""

from __future__ import annotations

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import ppgrad
from ppgrad import (
    BestOf,
    CVaR,
    DisARM,
    EntropicRisk,
    Enumerate,
    InvalidAssignment,
    InvalidInput,
    LeaveOneOut,
    Pathwise,
    ScoreFunction,
    Unsupported,
)
from ppgrad.testing import all_problems
from ppgrad.testing.problems import parameters

FAILURE_RATE = 1e-7
PROBLEMS = all_problems()


def gaussian() -> None:
    p = parameters({"mu": 0.3, "sigma": 1.5})
    ppgrad.reward("r", ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"])))


def coin() -> None:
    ppgrad.reward("r", ppgrad.policy("b", dist.Bernoulli(logits=parameters({"logit": -1.2})["logit"])))


def p_value(measurement: ppgrad.Measurement, name: str, exact: float) -> float:
    z = (float(measurement.mean[name]) - exact) / max(float(measurement.mcse[name]), 1e-6)
    return float(2 * stats.norm.sf(abs(z)))


@pytest.mark.parametrize("level", [0.5, 1 / 3, 0.25, 0.9])
def test_cvar_is_the_mean_of_the_worst(level: float) -> None:
    returns = torch.tensor([3.0, -1.0, 2.0, 0.0])
    worst = level * 4
    shares = [min(max(worst - i, 0.0), 1.0) for i in range(4)] if worst >= 1 else [1.0, 0.0, 0.0, 0.0]
    expected = sum(s * r for s, r in zip(shares, sorted(returns.tolist()), strict=True)) / max(worst, 1.0)
    assert float(CVaR(level=level).value(-returns)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "objective", [CVaR(level=0.4), CVaR(level=0.9), BestOf(k=1), BestOf(k=2), BestOf(k=5)], ids=repr
)
def test_a_run_is_charged_with_what_it_changes(objective: CVaR | BestOf) -> None:
    costs = torch.randn(3, 5, dtype=torch.float64)
    credit = objective.credit(costs)
    for run in range(5):
        moved = costs.clone()
        moved[:, run] += torch.linspace(-2, 2, 3, dtype=torch.float64)
        joint = objective.value(costs) - objective.value(moved)
        torch.testing.assert_close(objective.credit(moved)[:, run] - credit[:, run], joint)


def test_pass_at_k_is_chens() -> None:
    for right in range(7):
        solved = torch.tensor([1.0] * right + [0.0] * (6 - right))
        for k in range(1, 7):
            expected = 1 - math.comb(6 - right, k) / math.comb(6, k)
            assert float(BestOf(k=k).value(-solved)) == pytest.approx(expected)


@pytest.mark.parametrize("estimator", [ScoreFunction(), ScoreFunction(LeaveOneOut()), DisARM()], ids=repr)
@pytest.mark.parametrize(("k", "runs"), [(1, 3), (3, 3), (3, 6)])
def test_pass_at_k_is_unbiased_for_any_number_of_runs(estimator: ppgrad.Estimator, k: int, runs: int) -> None:
    objective = BestOf(estimator, k=k, num_importance=runs, num_particles=2)
    found = ppgrad.measure(objective, coin, replicates=4000)
    q = 1 / (1 + math.exp(1.2))
    assert p_value(found, "logit", k * (1 - q) ** (k - 1) * q * (1 - q)) > FAILURE_RATE


def test_more_runs_lower_the_variance_of_pass_at_k_more_than_more_groups() -> None:
    groups = ppgrad.measure(BestOf(k=4, num_importance=4, num_particles=4), coin, replicates=4000)
    together = ppgrad.measure(BestOf(k=4, num_importance=16), coin, replicates=4000)
    assert float(together.variance["logit"]) < 0.8 * float(groups.variance["logit"])


def exact_cvar(level: float) -> float:
    """∂σ of μ − σ φ(Φ⁻¹(level)) / level."""
    return -float(stats.norm.pdf(stats.norm.ppf(level))) / level


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()], ids=repr)
def test_cvars_bias_falls_with_the_number_of_runs(estimator: ppgrad.Estimator) -> None:
    biases, errors = [], []
    for runs in (4, 32):
        objective = CVaR(estimator, level=0.25, num_importance=runs, num_particles=256 // runs)
        found = ppgrad.measure(objective, gaussian, replicates=4000)
        biases.append(float(found.mean["sigma"]) - exact_cvar(0.25))
        errors.append(float(found.mcse["sigma"]))
        assert p_value(found, "mu", 1.0) > FAILURE_RATE
    # Of four runs the worst: −E max of four standard normals is −1.0294, and the limit is −1.2711.
    assert stats.norm.sf(abs(biases[0] - (1.2711 - 1.0294)) / errors[0]) > FAILURE_RATE
    assert biases[0] - 6 * biases[1] > -6 * math.hypot(errors[0], 6 * errors[1])
    assert abs(biases[1]) < biases[0] / 4


def test_biased_is_said_in_the_table() -> None:
    table = ppgrad.compare({"cvar": CVaR(ScoreFunction(), level=0.5, num_importance=4)}, coin, replicates=50).summary()
    assert (table["biased"] == "biased").all()
    assert CVaR(level=0.1).facts.order == EntropicRisk().facts.order == "O(1/K)"
    assert not BestOf(k=2).facts.biased


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, math.nan, True])
def test_a_level_outside_of_its_range(level: float) -> None:
    with pytest.raises(InvalidInput, match=r"level is a share in \(0, 1\)"):
        CVaR(level=level)


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_a_k_that_is_none(k: int) -> None:
    with pytest.raises(InvalidInput, match="k is an integer from 1 up"):
        BestOf(k=k)


def test_fewer_runs_than_k() -> None:
    with pytest.raises(InvalidInput, match="Write num_importance=4 or more"):
        BestOf(k=4, num_importance=3)


def test_a_level_in_the_estimators_place() -> None:
    with pytest.raises(InvalidAssignment, match=r"takes an estimator, not 0\.1"):
        CVaR(0.1)


@pytest.mark.parametrize("objective", [CVaR(Enumerate(), level=0.5), BestOf(Enumerate())], ids=repr)
def test_no_site_is_summed_over(objective: CVaR | BestOf) -> None:
    with pytest.raises(Unsupported, match="Enumerate cannot serve site 'b'"):
        ppgrad.gradient(objective, coin)


def test_a_program_in_a_loop_agrees_with_enumeration() -> None:
    def turning() -> None:
        a = ppgrad.policy("a", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        if a > 0:
            ppgrad.reward("r", 2.0 * ppgrad.policy("b", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"])))
        else:
            ppgrad.reward("s", torch.tensor(1.0))

    logit = torch.tensor(0.3, requires_grad=True)
    q = torch.sigmoid(logit)
    chances, returns = torch.stack([1 - q, q * (1 - q), q * q]), (1.0, 0.0, 2.0)
    best = sum(chances[i] * chances[j] * max(returns[i], returns[j]) for i, j in itertools.product(range(3), repeat=2))
    (exact,) = torch.autograd.grad(best, logit)
    found = ppgrad.measure(BestOf(k=2, num_importance=3), turning, replicates=1500)
    assert p_value(found, "logit", float(exact)) > FAILURE_RATE
