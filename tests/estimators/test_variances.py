"""Variances against closed forms, by a z test with the sample variance's own standard error."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import ppgrad
from ppgrad import (
    ARM,
    Constant,
    DisARM,
    Enumerate,
    ExpectedReturn,
    LeaveOneOut,
    MeasureValued,
    Pathwise,
    ScoreFunction,
)
from ppgrad.measurement import measure
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters

FAILURE_RATE = SUITE_FAILURE_RATE / 200
REPLICATES = 400_000
D, SIGMA = 0.6, 0.8


def quadratic() -> None:
    p = parameters({"mu": D, "sigma": SIGMA})
    ppgrad.cost("f", ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"])) ** 2)


def check(objective: ppgrad.Objective, model, expected: dict[str, float]) -> None:
    result = measure(objective, model, replicates=REPLICATES, reference={k: torch.zeros(()) for k in expected})
    for name, variance in expected.items():
        found, error = float(result.variance[name]), float(result.variance_mcse[name])
        if variance == 0:
            assert found < 1e-12
            continue
        # The sample mean's own error takes χ²/n of it, which is all there is where an estimate has two values.
        lost = variance * stats.chi2.isf(FAILURE_RATE, 1) / REPLICATES
        p_value = 2 * stats.norm.sf(max(0.0, abs(found - variance) - lost) / error)
        assert p_value > FAILURE_RATE, f"variance of '{name}': {found} ± {error}, expected {variance}"


def constant(b: float) -> dict[str, float]:
    d2, s2 = D**2, SIGMA**2
    u = d2 - b
    return {
        "mu": u**2 / s2 + 6 * u + 15 * s2 + 8 * d2,
        "sigma": 2 * u**2 / s2 + 20 * u + 74 * s2 + 40 * d2,
    }


@pytest.mark.parametrize("b", [0.0, D**2 + SIGMA**2, 2.5])
def test_quadratic_score_with_a_constant(b: float) -> None:
    """The baseline is the expected return, minus the expected cost."""
    check(ExpectedReturn(ScoreFunction(Constant(-b))), quadratic, constant(b))


def test_quadratic_score_without_a_baseline() -> None:
    d2, s2 = D**2, SIGMA**2
    expected = {"mu": d2**2 / s2 + 14 * d2 + 15 * s2, "sigma": 2 * d2**2 / s2 + 60 * d2 + 74 * s2}
    assert expected == pytest.approx(constant(0.0))
    check(ExpectedReturn(ScoreFunction()), quadratic, expected)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_quadratic_leave_one_out(n: int) -> None:
    d2, s2 = D**2, SIGMA**2
    expected = {
        "mu": (8 * d2 + 10 * s2) / n + (8 * d2 + 2 * s2) / (n * (n - 1)),
        "sigma": (40 * d2 + 56 * s2) / n + (8 * d2 + 8 * s2) / (n * (n - 1)),
    }
    check(ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=n), quadratic, expected)


def test_leave_one_out_over_a_plate_is_that_over_particles() -> None:
    n, d2, s2 = 4, D**2, SIGMA**2

    def program() -> None:
        p = parameters({"mu": D, "sigma": SIGMA})
        with pyro.plate("n", n):
            ppgrad.cost("f", ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"])) ** 2 / n)

    expected = {"mu": (8 * d2 + 10 * s2) / n + (8 * d2 + 2 * s2) / (n * (n - 1))}
    check(ExpectedReturn(ScoreFunction(LeaveOneOut(over="n"))), program, expected | {"sigma": sigma_loo(n)})


def sigma_loo(n: int) -> float:
    d2, s2 = D**2, SIGMA**2
    return (40 * d2 + 56 * s2) / n + (8 * d2 + 8 * s2) / (n * (n - 1))


def test_quadratic_pathwise() -> None:
    check(ExpectedReturn(Pathwise()), quadratic, {"mu": 4 * SIGMA**2, "sigma": 4 * D**2 + 8 * SIGMA**2})


@pytest.mark.parametrize(("baseline", "expected"), [(None, 0.340845), (Constant(0.5), 0.090845)])
def test_step(baseline: Constant | None, expected: float) -> None:
    """f = 1[x > c] at c = μ, σ = 1; the reference page gives six digits."""

    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(parameters({"mu": 0.3})["mu"], 1.0))
        ppgrad.reward("r", (x > 0.3).float())

    exact = 0.5 - 1 / (2 * math.pi)  # E[f² s²] − (E f s)² at b = 0
    if baseline is None:
        assert exact == pytest.approx(expected, abs=1e-6)
    check(ExpectedReturn(ScoreFunction(baseline)), program, {"mu": expected})


@pytest.mark.parametrize("coupled", [True, False])
def test_quadratic_measure_valued(coupled: bool) -> None:
    d2, s2 = D**2, SIGMA**2
    if coupled:
        expected = {"mu": (16 / math.pi - 4) * d2, "sigma": 4 * d2 + 4 * s2}
    else:
        expected = {"mu": (8 / math.pi - 2) * d2 + 4 * s2 / math.pi, "sigma": 16 * d2 + 8 * s2}
    check(ExpectedReturn(MeasureValued(coupled=coupled)), quadratic, expected)


def test_step_measure_valued_has_no_variance() -> None:
    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(parameters({"mu": 0.3})["mu"], 1.0))
        ppgrad.reward("r", (x > 0.3).float())

    check(ExpectedReturn(MeasureValued()), program, {"mu": 0.0})


def bernoulli(t: float, logit: float):
    def program() -> None:
        b = ppgrad.policy("b", dist.Bernoulli(logits=parameters({"logit": logit})["logit"]))
        ppgrad.cost("f", (b - t) ** 2)

    return program


@pytest.mark.parametrize("t", [0.499, 0.45])
@pytest.mark.parametrize("logit", [0.0, 1.3])
def test_single_bernoulli(t: float, logit: float) -> None:
    p = 1 / (1 + math.exp(-logit))
    q, f0, f1 = p * (1 - p), t**2, (1 - t) ** 2
    delta = f1 - f0
    program = bernoulli(t, logit)
    check(ExpectedReturn(ScoreFunction()), program, {"logit": q * ((1 - p) * f1 + p * f0) ** 2})
    mean = p * f1 + (1 - p) * f0
    check(ExpectedReturn(ScoreFunction(Constant(-mean))), program, {"logit": q * (1 - 2 * p) ** 2 * delta**2})
    loo = {"logit": delta**2 * q * (1 - 2 * q) / 2}
    check(ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=2), program, loo)
    check(ExpectedReturn(Enumerate()), program, {"logit": 0.0})
    check(ExpectedReturn(ARM()), program, {"logit": delta**2 * (1 / 12 - 2 / 3 * abs(p - 0.5) ** 3 - q**2)})
    both = 2 * min(p, 1 - p)
    check(ExpectedReturn(DisARM()), program, {"logit": delta**2 * max(p, 1 - p) ** 2 * both * (1 - both) / 4})


def test_a_score_that_is_missing_its_detach_is_seen() -> None:
    """log N(μ + σε; μ, σ) has total derivative 0 in μ: plugging in the pathwise sample loses the score."""
    mu, sigma = torch.tensor(0.3, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    x = dist.Normal(mu, sigma).rsample()
    gradients = torch.autograd.grad(dist.Normal(mu, sigma).log_prob(x), [mu, sigma])
    assert gradients[0] == pytest.approx(0.0, abs=1e-6)
    assert gradients[1] == pytest.approx(-1 / 0.7, rel=1e-5)
