"""Lanes: vmap and the loop mean the same, and the loop says why it runs."""

from __future__ import annotations

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ELBO, Enumerate, ExpectedReturn, LeaveOneOut, Pathwise, ScoreFunction
from ppgrad.core import Problem
from ppgrad.engine.running import lanes
from ppgrad.measurement import exact_gradient, measure
from ppgrad.testing import SUITE_FAILURE_RATE, Case, all_problems, check_mean
from ppgrad.testing.problems import closed_form, parameters

FAILURE_RATE = SUITE_FAILURE_RATE / 200
PROBLEMS = all_problems()


@pytest.mark.parametrize("name", ["coupled_plate", "sequential_plate", "subsampled_elbo", "mixed", "masked"])
@pytest.mark.parametrize("estimator", [None, ScoreFunction(LeaveOneOut())], ids=repr)
def test_the_loop_has_the_same_mean(name: str, estimator: ppgrad.Estimator | None) -> None:
    problem = PROBLEMS[name]
    objective = problem.objective(estimator, num_particles=2, vectorize_particles=False)
    result = measure(objective, problem.model, problem.guide, replicates=500, reference=problem.exact())
    assert all((p > FAILURE_RATE).all() for p in result.p_value.values())


def dynamic() -> None:
    """Which sites there are depends on what was drawn."""
    p = parameters({"first": 0.3, "second": -0.5})
    a = ppgrad.policy("a", dist.Bernoulli(logits=p["first"]))
    total = a * 1.0
    if a > 0:
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["second"]))
        ppgrad.reward("r_b", b * 2)
        if b > 0:
            total = total + ppgrad.policy("c", dist.Normal(p["second"], 1.0))
    ppgrad.reward("r", total)


def dynamic_value(p):
    first, second = torch.sigmoid(p["first"]), torch.sigmoid(p["second"])
    return first * (1 + second * (2 + p["second"]))


DYNAMIC = Problem(
    dynamic, ExpectedReturn, "sites that come and go", exact=closed_form({"first": 0.3, "second": -0.5}, dynamic_value)
)


@pytest.mark.parametrize(
    "estimator", [ScoreFunction(), ScoreFunction(LeaveOneOut()), Enumerate(), Pathwise()], ids=repr
)
def test_a_program_whose_sites_come_and_go(estimator: ppgrad.Estimator, caplog: pytest.LogCaptureFixture) -> None:
    lanes._noted.clear()
    check_mean(Case(estimator, "dynamic", DYNAMIC), FAILURE_RATE, replicates=600)
    assert "runs in a loop, not under vmap" in caplog.text


def test_the_exact_gradient_of_a_program_whose_sites_come_and_go() -> None:
    found, expected = exact_gradient(ExpectedReturn(), dynamic), DYNAMIC.exact()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("source", ["numpy", "python"])
def test_other_generators_are_not_shared_by_lanes(source: str, caplog: pytest.LogCaptureFixture) -> None:
    def model() -> None:
        x = ppgrad.policy("x", dist.Normal(parameters({"mu": 0.5})["mu"], 1.0))
        noise = np.random.normal() if source == "numpy" else random.gauss(0.0, 1.0)
        ppgrad.reward("r", x * noise)

    result = measure(ExpectedReturn(Pathwise()), model, replicates=200)
    assert len(set(result.draws["mu"].tolist())) > 100
    assert "generator" in caplog.text


SAMPLERS = {
    "exponential": lambda p: dist.Exponential(p.exp()),
    "laplace": lambda p: dist.Laplace(p, p.exp()),
    "cauchy": lambda p: dist.Cauchy(p, p.exp()),
    "geometric": lambda p: dist.Geometric(logits=p),
    "gumbel": lambda p: dist.Gumbel(p, p.exp()),
    "gamma": lambda p: dist.Gamma(p.exp(), p.exp()),
    "beta": lambda p: dist.Beta(p.exp(), 1 + p.exp()),
    "dirichlet": lambda p: dist.Dirichlet(p.exp()),
    "student": lambda p: dist.StudentT(p.exp() + 2, p, p.exp()),
    "weibull": lambda p: dist.Weibull(p.exp(), 1 + p.exp()),
    "low_rank": lambda p: dist.LowRankMultivariateNormal(p, p[:, None], p.exp()),
    "von_mises": lambda p: dist.VonMises(p, p.exp()),
    "multinomial": lambda p: dist.Multinomial(5, logits=p),
    "one_hot": lambda p: dist.OneHotCategorical(logits=p),
    "relaxed": lambda p: dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=p),
    "lkj": lambda p: dist.LKJCholesky(3, p[0].exp()),
    "negative_binomial": lambda p: dist.NegativeBinomial(5, logits=p),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_lanes_draw_apart(name: str) -> None:
    """Replicates of every sampler differ, those included that torch fills in place."""

    def model() -> None:
        fn = SAMPLERS[name](parameters({"p": [0.1, 0.2, -0.3]})["p"])
        x = ppgrad.policy("x", fn.to_event(len(fn.batch_shape)))
        ppgrad.reward("r", (x * torch.arange(x.numel()).reshape(x.shape)).sum())

    result = measure(ExpectedReturn(ScoreFunction()), model, replicates=20)
    assert len({tuple(draw.tolist()) for draw in result.draws["p"]}) >= 3


def test_particles_and_replicates_are_the_same_average() -> None:
    """One gradient of 4,000 particles is as good as the mean of 4,000 replicates."""
    problem = PROBLEMS["bernoulli_chain"]
    exact = problem.exact()
    single = measure(ExpectedReturn(ScoreFunction()), problem.model, replicates=4000)
    many = ppgrad.gradient(ExpectedReturn(ScoreFunction(), num_particles=4000), problem.model, seed=5)
    for name, value in many.items():
        z = (value - exact[name]) / single.mcse[name]
        assert (z.abs() < 6).all()


def test_chunks_leave_the_estimate_unbiased() -> None:
    problem = PROBLEMS["episodes"]
    objective = ExpectedReturn(ScoreFunction(), num_particles=2)
    result = measure(objective, problem.model, replicates=1001, chunk_size=77, reference=problem.exact())
    assert all(draws.shape[0] == 1001 for draws in result.draws.values())
    assert all((p > FAILURE_RATE).all() for p in result.p_value.values())


def test_an_elbo_with_a_data_argument() -> None:
    def model(data: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("n", len(data)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=data)

    def guide(data: torch.Tensor) -> None:
        pyro.sample("z", dist.Normal(parameters({"m": 0.3})["m"], 1.0))

    objective = ELBO(num_particles=3)
    for size in (2, 5):
        assert ppgrad.gradient(objective, model, guide, args=(torch.ones(size),), seed=0)["m"].shape == ()
