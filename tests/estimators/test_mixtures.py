"""Mixtures of score function and pathwise gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
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


def small_jump() -> None:
    """A jump of 1 beside a slope of 10: 400 times the held-out runs would tell it from the noise."""
    x = ppgrad.policy("x", dist.Normal(parameters({"mu": 0.0})["mu"], 1.0))
    ppgrad.cost("f", 10 * x + (x > 0).to(x.dtype))


def walk(steps: int, pays: str) -> None:
    x = torch.zeros(())
    drift = parameters({"mu": 0.05})["mu"]
    for t in range(steps):
        x = ppgrad.policy(f"x_{t}", dist.Normal(x + drift, 0.3))
        over = (x > 0.3).to(x.dtype)
        if pays == "at the end":
            ppgrad.cost(f"c_{t}", over * (t == steps - 1))
        else:
            ppgrad.cost(f"c_{t}", over + x**2 * (pays == "and for being away"))


def exact_of_the_walk(steps: int, pays: str) -> torch.Tensor:
    drift = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    times = torch.arange(1, steps + 1, dtype=torch.float64)
    over = torch.special.ndtr((times * drift - 0.3) / (0.3 * times.sqrt()))
    cost = over[-1] if pays == "at the end" else over.sum()
    cost = cost + (times * drift).square().sum() * (pays == "and for being away")
    return torch.autograd.grad(-cost, drift)[0].float()


def plate_of_steps() -> None:
    """One step in 64 elements whose slopes hide it; vectors of a simplex, where a line leads from draw to draw."""
    p = parameters({"mu": 0.0})
    with pyro.plate("n", 64):
        x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0))
        ppgrad.cost("f", 3 * x + (x > torch.linspace(-1, 1, 64)).to(x.dtype))


def alphas(program: Callable[..., None], *args: Any, **options: Any) -> dict[str, float]:
    objective = ExpectedReturn(InverseVariance(ScoreFunction(LeaveOneOut())), num_particles=4, **options)
    objective.loss_and_grads(program, None, *args)
    return {site: float(memory["alpha"]) for site, memory in objective.memory.items()}


@pytest.mark.parametrize("seed", range(5))
def test_a_small_jump_under_much_noise_is_seen(seed: int) -> None:
    truth = {"mu": torch.tensor(-10 - 0.398942)}
    result = measure(ExpectedReturn(InverseVariance()), small_jump, replicates=20_000, reference=truth, seed=seed)
    assert float(result.p_value["mu"]) > 1e-7


@pytest.mark.parametrize("pays", ["at each step", "at the end", "and for being away"])
@pytest.mark.parametrize("steps", [3, 10])
def test_small_biases_of_many_sites_are_seen(pays: str, steps: int) -> None:
    objective = ExpectedReturn(InverseVariance(ScoreFunction(LeaveOneOut())), num_particles=4)
    truth = {"mu": exact_of_the_walk(steps, pays)}
    result = measure(objective, walk, args=(steps, pays), replicates=5000, reference=truth)
    assert float(result.p_value["mu"]) > 1e-7


def test_only_the_site_whose_cost_jumps_is_left_to_the_score() -> None:
    pyro.set_rng_seed(0)
    found = alphas(walk, 4, "at the end")
    assert found.pop("x_3") == 0.0
    assert all(alpha > 0.3 for alpha in found.values()), found


def test_one_jump_among_many_elements_is_seen() -> None:
    pyro.set_rng_seed(1)
    assert alphas(plate_of_steps) == {"x": 0.0}


def test_jumps_are_found_in_a_loop_and_on_a_simplex() -> None:
    def shares(jumps: bool) -> None:
        x = ppgrad.policy("x", dist.LogisticNormal(parameters({"a": [0.3, -0.2]})["a"], torch.ones(2)))
        ppgrad.cost("f", x.square().sum() + float(jumps) * (x[0] > 0.3).to(x.dtype))

    pyro.set_rng_seed(2)
    assert alphas(small_jump, vectorize_particles=False) == {"x": 0.0}
    assert alphas(shares, False)["x"] > 0
    assert alphas(shares, True) == {"x": 0.0}


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
