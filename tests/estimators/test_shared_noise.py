"""Particles that share noise: antithetic pairs and quasi-Monte Carlo points."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    ELBO,
    IWELBO,
    Antithetic,
    ExpectedReturn,
    LeaveOneOut,
    Pathwise,
    QuasiMonteCarlo,
    ScoreFunction,
    Unsupported,
    measure,
)
from ppgrad.engine.running.shared_noise import shared_noise
from ppgrad.testing.problems import parameters


def two_sites() -> None:
    p = parameters({"mu": [0.6, -0.2], "logits": 0.3})
    x = ppgrad.policy("x", dist.Normal(p["mu"], 0.8).to_event(1))
    b = ppgrad.policy("b", dist.Bernoulli(logits=p["logits"]))
    ppgrad.cost("f", (x.sum() + b) ** 2 + x[0] * b)


@pytest.mark.parametrize("draws", [Antithetic(), QuasiMonteCarlo()], ids=repr)
def test_shared_noise_lowers_the_variance_and_keeps_the_mean(draws: ppgrad.core.Draws) -> None:
    reference = ppgrad.exact_gradient(ExpectedReturn(), two_sites)
    alone = measure(ExpectedReturn(ScoreFunction(), num_particles=16), two_sites, replicates=4000, reference=reference)
    shared = ExpectedReturn(ScoreFunction(draws=draws), num_particles=16)
    together = measure(shared, two_sites, replicates=4000, reference=reference)
    for name in reference:
        assert bool((together.variance[name] < alone.variance[name]).all())
        assert bool((together.p_value[name] > 1e-7).all())


def test_antithetic_pathwise_is_exact_for_a_quadratic() -> None:
    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(parameters({"mu": 0.6})["mu"], 0.8))
        ppgrad.cost("f", x**2)

    result = measure(ExpectedReturn(Pathwise(draws=Antithetic()), num_particles=2), program, replicates=100)
    torch.testing.assert_close(result.draws["mu"], torch.full((100,), -1.2))


def test_sites_share_one_sequence() -> None:
    """Sixteen Sobol points in two dimensions fill every cell of a 4 × 4 grid, whichever their shift."""
    values = []

    def program() -> None:
        p = parameters({"loc": 0.0})
        u = ppgrad.policy("u", dist.Normal(p["loc"], 1.0))
        v = ppgrad.policy("v", dist.Normal(p["loc"], 1.0))
        ppgrad.cost("f", u * v)

    objective = ExpectedReturn(Pathwise(draws=QuasiMonteCarlo()), num_particles=16)
    executor = objective.prepare(program).executor
    uniforms = shared_noise(executor.known.noises, 16, 1)
    values = torch.stack([uniforms["u"], uniforms["v"]], -1)
    assert values.shape == (16, 2)
    for column in values.T:
        assert sorted((((column - column.min()) * 16).round() % 16).tolist()) == list(range(16))


def test_a_loop_draws_from_the_same_points() -> None:
    def looped() -> None:
        p = parameters({"mu": 0.6})
        x = ppgrad.policy("x", dist.Normal(p["mu"], 0.8))
        ppgrad.cost("f", x**2 if x.item() < 1e9 else x)

    result = measure(ExpectedReturn(Pathwise(draws=Antithetic()), num_particles=2), looped, replicates=5)
    torch.testing.assert_close(result.draws["mu"], torch.full((5,), -1.2))


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (ExpectedReturn(Pathwise(draws=Antithetic())), "write num_particles=2"),
        (ExpectedReturn(ScoreFunction(LeaveOneOut(), QuasiMonteCarlo()), num_particles=4), "independent particles"),
    ],
    ids=str,
)
def test_what_cannot_share_noise_is_refused(objective: ppgrad.Objective, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        ppgrad.gradient(objective, two_sites if "Score" in repr(objective) else _normal, seed=0)


def _normal() -> None:
    ppgrad.cost("f", ppgrad.policy("x", dist.Normal(parameters({"mu": 0.6})["mu"], 0.8)) ** 2)


def test_a_distribution_without_a_quantile_function_is_refused() -> None:
    def program() -> None:
        ppgrad.cost("f", ppgrad.policy("x", dist.Gamma(parameters({"a": 2.0})["a"], 1.0)))

    with pytest.raises(Unsupported, match="Gamma has no quantile function"):
        ppgrad.gradient(ExpectedReturn(Pathwise(draws=Antithetic()), num_particles=2), program, seed=0)


def test_importance_samples_stay_independent() -> None:
    def model() -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide() -> None:
        pyro.sample("z", dist.Normal(parameters({"mu": 0.6})["mu"], 0.8))

    objective = IWELBO(Pathwise(draws=Antithetic()), num_importance=4, num_particles=2)
    with pytest.raises(Unsupported, match="another bound"):
        ppgrad.gradient(objective, model, guide, seed=0)
    ppgrad.gradient(ELBO(Pathwise(draws=Antithetic()), num_particles=2), model, guide, seed=0)
