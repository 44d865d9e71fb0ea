"""Mixtures of score function and pathwise gradient."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    ExpectedReturn,
    Interpolated,
    InvalidInput,
    InverseVariance,
    LeaveOneOut,
    Measurement,
    Pathwise,
    ScoreFunction,
    measure,
)
from ppgrad.testing.problems import parameters


def quadratic() -> None:
    p = parameters({"mu": 0.6, "sigma": 0.8})
    ppgrad.cost("f", ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"])) ** 2)


def step() -> None:
    p = parameters({"mu": 0.0, "sigma": 1.0})
    ppgrad.reward("f", (ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"])) > 0).to(torch.get_default_dtype()))


def stiff_ramp() -> None:
    p = parameters({"mu": 0.0, "sigma": 1.0})
    ppgrad.reward("f", (ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"])) / 1e-4).clamp(0, 1))


def wavy() -> None:
    """A smooth program where each of the two wins in turn: the path at x, the score at y."""
    p = parameters({"mu": 0.6, "nu": 0.3})
    x = ppgrad.policy("x", dist.Normal(p["mu"], 0.8))
    y = ppgrad.policy("y", dist.Normal(p["nu"], 1.0))
    ppgrad.cost("f", x**2 + torch.sin(20 * y))


def total(result: Measurement) -> float:
    return sum(float(variance.sum()) for variance in result.variance.values())


@pytest.mark.parametrize("program", [quadratic, wavy], ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_no_worse_than_the_better_of_the_two(program: Callable[[], None], seed: int) -> None:
    found = {
        type(e).__name__: measure(ExpectedReturn(e), program, replicates=50_000, seed=seed)
        for e in (InverseVariance(), ScoreFunction(), Pathwise())
    }
    error = sum(float(mcse.square().sum()) for mcse in found["InverseVariance"].variance_mcse.values()) ** 0.5
    better = min(total(found["ScoreFunction"]), total(found["Pathwise"]))
    assert total(found["InverseVariance"]) < 1.05 * better + 5 * error
    if program is wavy:  # each site has a weight of its own
        assert total(found["InverseVariance"]) < 0.5 * better


@pytest.mark.parametrize("program", [step, stiff_ramp], ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(5))
def test_a_biased_path_is_not_followed(program: Callable[[], None], seed: int) -> None:
    truth = {"mu": torch.tensor(0.398942), "sigma": torch.tensor(0.0)}
    result = measure(ExpectedReturn(InverseVariance()), program, replicates=20_000, reference=truth, seed=seed)
    assert all(float(p) > 1e-7 for p in result.p_value.values())


def test_training_keeps_the_weight_and_measuring_uses_it() -> None:
    objective = ExpectedReturn(InverseVariance(ScoreFunction(LeaveOneOut())), num_particles=2)
    objective.loss_and_grads(quadratic, None)
    kept = objective.memory["x"]["alpha"]
    assert 0.5 < float(kept) <= 1.0
    ppgrad.gradient(objective, quadratic, seed=0)
    assert objective.memory["x"]["alpha"] is kept


def test_held_out_runs_leave_the_callers_draws_alone() -> None:
    torch.manual_seed(0)
    loss = ExpectedReturn(InverseVariance()).loss(quadratic, None)
    torch.manual_seed(0)
    assert ExpectedReturn(InverseVariance()).loss_and_grads(quadratic, None) == pytest.approx(loss)


def test_the_ends_are_the_two_estimators() -> None:
    for alpha, estimator in ((0.0, ScoreFunction()), (1.0, Pathwise())):
        mixed = ppgrad.gradient(ExpectedReturn(Interpolated(alpha)), quadratic, seed=0)
        pure = ppgrad.gradient(ExpectedReturn(estimator), quadratic, seed=0)
        for name in pure:
            torch.testing.assert_close(mixed[name], pure[name])


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_outside_of_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(InvalidInput, match="alpha lies in"):
        Interpolated(alpha)
