"""The programs of models/: their exact gradients, against other ways to the same numbers."""

from __future__ import annotations

import copy
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

import ppgrad
from ppgrad import ELBO, CannotBeExact, Constant, ExpectedReturn, LeaveOneOut, Pathwise, Problem, ScoreFunction
from ppgrad.testing import SUITE_FAILURE_RATE, check_mean, check_pure, conformance_cases

Load = Callable[[str], ModuleType]


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("quadratic", {}),
    ("quadratic", {"mu": 2, "sigma": 0.5, "k": -1}),
    ("step_reward", {}),
    ("step_reward", {"mu": 0.5, "sigma": 2, "c": -0.3}),
    ("gaussian_policy", {"covariance": "constant"}),
    ("gaussian_policy", {"covariance": "diagonal"}),
    ("gaussian_policy", {"covariance": "full"}),
    ("gaussian_policy", {"covariance": "full", "episodes": 3, "hidden": 5, "floor": 0.3, "seed": 4}),
    ("credit_chain", {}),
    ("credit_chain", {"pay": "episode"}),
    ("credit_chain", {"pay": "end", "horizon": 3, "episodes": 2}),
    ("random_walk", {"steps": "gaussian"}),
    ("random_walk", {"steps": "coin", "horizon": 2}),
    ("discrete_chain", {}),
    ("discrete_chain", {"depth": 4, "elements": 2}),
    ("logistic_regression", {}),
    ("logistic_regression", {"subsample": 64}),
    ("lqr", {}),
    ("lqr", {"gain": (1.0, 2.0), "std": 0.3, "horizon": 4, "episodes": 3}),
    ("ball_with_wall", {}),
    ("ball_with_wall", {"mean": 1.2, "std": 0.3, "episodes": 2}),
    ("hidden_markov", {"latent": "drawn", "steps": 3}),
    ("gaussian_mixture", {}),
    ("gaussian_mixture", {"latent": "drawn", "data": 4}),
]
NOT_PATHWISE = ("step_reward", "random_walk", "discrete_chain", "ball_with_wall", "hidden_markov")
# Programs that run in a loop, or on much data: fewer replicates.
REPLICATES = {"random_walk": 400, "logistic_regression": 2000}
QUADRATURE: list[tuple[str, dict[str, Any]]] = [
    ("quadratic", {}),
    ("quadratic", {"mu": 2, "sigma": 0.5, "k": -1}),
    ("gaussian_policy", {"covariance": "constant"}),
    ("gaussian_policy", {"covariance": "diagonal"}),
    ("gaussian_policy", {"covariance": "full"}),
    ("credit_chain", {"horizon": 3, "episodes": 2, "pay": "step"}),
    ("credit_chain", {"horizon": 2, "episodes": 3, "pay": "episode"}),
    ("credit_chain", {"horizon": 2, "episodes": 2, "pay": "end"}),
    ("random_walk", {"steps": "gaussian", "horizon": 1}),
    ("random_walk", {"steps": "coin", "horizon": 4}),
    ("discrete_chain", {"depth": 1}),
    ("discrete_chain", {"depth": 2}),
    ("discrete_chain", {"depth": 4, "elements": 2}),
    ("hidden_markov", {"steps": 30, "states": 4}),
    ("hidden_markov", {"latent": "drawn", "steps": 3}),
    ("gaussian_mixture", {"data": 3}),
    ("gaussian_mixture", {"latent": "drawn", "data": 4}),
]


def name_of(setting: Any) -> str:
    return setting if isinstance(setting, str) else "-".join(f"{k}={v}" for k, v in setting.items()) or "defaults"


def test_every_program_is_here(load: Load) -> None:
    files = {path.stem for path in (Path(__file__).parents[2] / "models").glob("*.py")}
    exact = {name for name, _ in SETTINGS}
    assert exact <= files
    for file in files:
        problem = load(file).problem()
        assert isinstance(problem, Problem)
        assert problem.exact is None or file in exact


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=name_of)
def test_mean_of_replicates_is_exact(load: Load, name: str, settings: dict[str, Any]) -> None:
    problem = load(name).problem(**settings)
    cases = conformance_cases([ScoreFunction(), ScoreFunction(LeaveOneOut()), Pathwise()], {name: problem})
    assert [case.estimator for case in cases][:2] == [ScoreFunction(), ScoreFunction(LeaveOneOut())]
    assert (len(cases) == 3) == (name not in NOT_PATHWISE)
    for case in cases:
        check_mean(case, SUITE_FAILURE_RATE / 1000, REPLICATES.get(name, 20_000))
        check_pure(case)


@pytest.mark.parametrize(("name", "settings"), QUADRATURE, ids=name_of)
def test_exact_is_the_engines(load: Load, name: str, settings: dict[str, Any]) -> None:
    problem = load(name).problem(**settings)
    exact = problem.exact()
    found = ppgrad.exact_gradient(problem.objective(), problem.model, problem.guide, problem.args)
    assert list(found) == list(exact)
    largest = max(float(value.abs().max()) for value in exact.values())
    for parameter, value in exact.items():
        torch.testing.assert_close(found[parameter], value, rtol=0, atol=1e-5 * largest)


def test_gradient_has_the_names_and_shapes_of_exact(load: Load) -> None:
    for name, settings in SETTINGS:
        problem = load(name).problem(**settings)
        found = ppgrad.gradient(problem.objective(ScoreFunction()), problem.model, problem.guide, problem.args, seed=0)
        assert {key: value.shape for key, value in found.items()} == {
            key: value.shape for key, value in problem.exact().items()
        }


def test_problems_are_the_same_every_time(load: Load) -> None:
    for name, settings in SETTINGS:
        first = load(name).problem(**settings).exact()
        state = torch.get_rng_state()
        pyro.set_rng_seed(99)
        torch.rand(3)
        before = torch.get_rng_state()
        second = load(name).problem(**settings).exact()
        assert torch.equal(torch.get_rng_state(), before), f"{name} draws from the global generator"
        torch.set_rng_state(state)
        assert all(torch.equal(first[key], second[key]) for key in first)


# Quadratic: variances of reference/estimators.md.


def quadratic_variances(d: float, s: float, n: int) -> dict[str, tuple[Any, int, float, float]]:
    """Objective, particles, Var ∂μ, Var ∂σ."""
    u = d**2 - 3.0
    return {
        "score": (ScoreFunction(), 1, d**4 / s**2 + 14 * d**2 + 15 * s**2, 2 * d**4 / s**2 + 60 * d**2 + 74 * s**2),
        "constant": (
            ScoreFunction(Constant(-3.0)),  # the expected return; b is the cost's
            1,
            u**2 / s**2 + 6 * u + 15 * s**2 + 8 * d**2,
            2 * u**2 / s**2 + 20 * u + 74 * s**2 + 40 * d**2,
        ),
        "leave one out": (
            ScoreFunction(LeaveOneOut()),
            n,
            (8 * d**2 + 10 * s**2) / n + (8 * d**2 + 2 * s**2) / (n * (n - 1)),
            (40 * d**2 + 56 * s**2) / n + (8 * d**2 + 8 * s**2) / (n * (n - 1)),
        ),
        "pathwise": (Pathwise(), 1, 4 * s**2, 4 * d**2 + 8 * s**2),
    }


@pytest.mark.parametrize(("mu", "sigma", "k"), [(1.0, 1.0, 0.0), (0.5, 0.6, -1.0)])
@pytest.mark.parametrize("estimator", ["score", "constant", "leave one out", "pathwise"])
def test_quadratic_variance(load: Load, estimator: str, mu: float, sigma: float, k: float) -> None:
    problem = load("quadratic").problem(mu, sigma, k)
    chosen, particles, of_mu, of_sigma = quadratic_variances(mu - k, sigma, 4)[estimator]
    found = ppgrad.measure(
        ExpectedReturn(chosen, num_particles=particles), problem.model, args=problem.args, replicates=200_000
    )
    for name, variance in (("mu", of_mu), ("sigma", of_sigma)):
        z = float((found.variance[name] - variance) / found.variance_mcse[name])
        assert 2 * norm.sf(abs(z)) > SUITE_FAILURE_RATE / 100, (estimator, name, found.variance[name], variance)


# Step reward.


def test_step_reward_closed_form(load: Load) -> None:
    module = load("step_reward")
    exact = module.problem().exact()
    assert float(exact["mu"]) == pytest.approx(0.398942, abs=5e-7)
    assert float(exact["sigma"]) == 0.0
    h = 1e-5
    for mu, sigma, c in ((0.5, 2.0, -0.3), (-1.0, 0.7, 0.4)):
        exact = module.problem(mu, sigma, c).exact()
        by_mu = (norm.sf(c, mu + h, sigma) - norm.sf(c, mu - h, sigma)) / (2 * h)
        by_sigma = (norm.sf(c, mu, sigma + h) - norm.sf(c, mu, sigma - h)) / (2 * h)
        assert float(exact["mu"]) == pytest.approx(by_mu, abs=1e-6)
        assert float(exact["sigma"]) == pytest.approx(by_sigma, abs=1e-6)


def test_step_reward_pathwise_says_zero(load: Load) -> None:
    problem = load("step_reward").problem()
    with pytest.warns(ppgrad.NoGradientPath, match="'x'"):
        found = ppgrad.gradient(ExpectedReturn(Pathwise()), problem.model, args=problem.args, seed=0)
    assert float(found["mu"]) == float(found["sigma"]) == 0.0


def test_step_reward_quadrature_refuses(load: Load) -> None:
    problem = load("step_reward").problem()
    with pytest.raises(CannotBeExact, match="jumps"):
        ppgrad.exact_gradient(ExpectedReturn(), problem.model, args=problem.args)


@pytest.mark.parametrize(("baseline", "variance"), [(None, 0.340845), (Constant(0.5), 0.090845)])
def test_step_reward_variance(load: Load, baseline: Any, variance: float) -> None:
    problem = load("step_reward").problem()
    found = ppgrad.measure(
        ExpectedReturn(ScoreFunction(baseline)), problem.model, args=problem.args, replicates=100_000
    )
    z = float((found.variance["mu"] - variance) / found.variance_mcse["mu"])
    assert 2 * norm.sf(abs(z)) > SUITE_FAILURE_RATE / 100


# Gaussian policy.


@pytest.mark.parametrize("covariance", ["constant", "diagonal", "full"])
def test_gaussian_policy_covariance(load: Load, covariance: str) -> None:
    policy, state = load("gaussian_policy").problem(covariance).args
    tril = policy(state).scale_tril
    assert bool((tril[:, 1, 0] != 0).all()) == (covariance == "full")
    assert torch.equal(tril, tril[:1].expand_as(tril)) == (covariance == "constant")
    assert bool((torch.diagonal(tril, dim1=-2, dim2=-1) > policy.floor).all())


def test_gaussian_policy_exact_follows_the_policy(load: Load) -> None:
    problem = load("gaussian_policy").problem()
    policy, state = problem.args
    before = problem.exact()
    with torch.no_grad():
        policy.head.bias += 0.5
    after = problem.exact()
    assert not torch.allclose(before["policy.head.bias"], after["policy.head.bias"])
    found = ppgrad.exact_gradient(ExpectedReturn(), problem.model, args=(copy.deepcopy(policy), state))
    torch.testing.assert_close(found["policy.head.bias"], after["policy.head.bias"], rtol=0, atol=1e-5)


def test_gaussian_policy_pathwise_is_quieter(load: Load) -> None:
    problem = load("gaussian_policy").problem()
    traces = []
    for estimator in (ScoreFunction(), Pathwise()):
        found = ppgrad.measure(
            ExpectedReturn(estimator), problem.model, args=problem.args, replicates=2000, reference=problem.exact()
        )
        traces.append(sum(float(variance.sum()) for variance in found.variance.values()))
    assert traces[0] > 1.5 * traces[1]


# Credit.


def test_credit_lowers_the_variance_of_the_score_function(load: Load) -> None:
    draws, pathwise = {}, {}
    for pay in ("step", "episode", "end"):
        problem = load("credit_chain").problem(pay=pay)
        for estimator, found in ((ScoreFunction(), draws), (Pathwise(), pathwise)):
            objective = ExpectedReturn(estimator)
            measured = ppgrad.measure(objective, problem.model, args=problem.args, replicates=10_000)
            found[pay] = measured.draws["theta"]
    step, episode, end = (draws[pay].var(0) for pay in ("step", "episode", "end"))
    torch.testing.assert_close(draws["step"][:, 0], draws["episode"][:, 0], rtol=1e-3, atol=1e-3)
    assert bool((step[1:] < episode[1:]).all())
    assert float(step[-1]) < float(episode[-1]) / 4
    assert bool((4 * episode < end).all())
    for pay in ("episode", "end"):
        torch.testing.assert_close(pathwise[pay], pathwise["step"], rtol=1e-4, atol=1e-3)


# Random walk.


def test_random_walk_pathwise_has_no_path(load: Load) -> None:
    problem = load("random_walk").problem("gaussian")
    with pytest.warns(ppgrad.NoGradientPath, match=r"'step_0' \(and 2 more\)"):
        found = ppgrad.gradient(ExpectedReturn(Pathwise()), problem.model, args=problem.args, seed=0)
    assert all(float(value) == 0.0 for value in found.values())


def test_random_walk_runs_in_a_loop_and_says_why(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    problem = load("random_walk").problem("coin")
    with caplog.at_level(logging.WARNING, "ppgrad"):
        ppgrad.gradient(
            ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=3), problem.model, args=problem.args, seed=0
        )
    assert "runs in a loop" in caplog.text


# Logistic regression.


def test_logistic_regression_quadrature(load: Load) -> None:
    module = load("logistic_regression")
    x, _ = module.data()
    assert x.shape == (569, 31)
    start = torch.zeros(31)
    value = float(module.exact_elbo(start, start))
    # reference/estimators.md has −1226.869, a Monte Carlo figure: one sample's standard deviation is 885.
    assert value == pytest.approx(-1226.5925, abs=1e-4)
    spread = (x**2).sum(-1).sqrt().numpy()
    independent = sum(
        quad(lambda t, s=s: -np.logaddexp(0.0, -t * s) * norm.pdf(t), -12, 12, points=[0.0])[0] for s in spread
    )
    assert value == pytest.approx(independent, abs=1e-6)


def test_logistic_regression_elbo_is_the_estimated_one(load: Load) -> None:
    module = load("logistic_regression")
    problem, generator = module.problem(), torch.Generator().manual_seed(0)
    loc, log_scale = 0.3 * torch.randn(31, generator=generator), -2 + 0.1 * torch.randn(31, generator=generator)
    pyro.param("loc", loc)
    pyro.param("log_scale", log_scale)
    estimates = [-ELBO(num_particles=500).loss(problem.model, problem.guide, *problem.args) for _ in range(20)]
    standard_error = np.std(estimates, ddof=1) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - module.exact_elbo(loc, log_scale).item()) < 8 * standard_error


def test_logistic_regression_best(load: Load) -> None:
    module = load("logistic_regression")
    leaves = [torch.zeros(31, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.LBFGS(leaves, max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -module.exact_elbo(*leaves)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert module.exact_elbo(*leaves).item() == pytest.approx(-67.4633, abs=2e-4)
    assert module.accuracy(leaves[0].detach()) == pytest.approx(0.9877, abs=1e-4)


def test_logistic_regression_without_scikit_learn(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ppgrad.InvalidInput, match=r"pip install 'ppgrad\[models\]'"):
        load("logistic_regression").problem()


# Arguments.


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gaussian_policy", {"covariance": "banded"}),
        ("credit_chain", {"pay": "never"}),
        ("random_walk", {"steps": "levy"}),
        ("discrete_chain", {"depth": 0}),
        ("logistic_regression", {"subsample": 570}),
    ],
)
def test_wrong_argument_is_named(load: Load, name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ppgrad.InvalidInput, match=next(iter(settings))):
        load(name).problem(**settings)


def test_pyros_own_elbo_runs_the_logistic_model(load: Load) -> None:
    problem = load("logistic_regression").problem()
    trace = pyro.poutine.trace(problem.model).get_trace(*problem.args)
    assert isinstance(trace.nodes["y"]["fn"], dist.Bernoulli)
    assert math.isfinite(pyro.infer.Trace_ELBO().loss(problem.model, problem.guide, *problem.args))
