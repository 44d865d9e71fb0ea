"""Second derivatives against closed forms."""

from __future__ import annotations

import inspect
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import ppgrad
from ppgrad import (
    ELBO,
    CVaR,
    DisARM,
    Enumerate,
    Estimator,
    ExpectedReturn,
    GroupRelative,
    InvalidInput,
    KLRegularized,
    LeaveOneOut,
    LocalExpectation,
    Pathwise,
    Problem,
    ScoreFunction,
    Unsupported,
    VarGrad,
)
from ppgrad.engine.running.site import site_info
from ppgrad.testing import all_problems
from ppgrad.testing.problems import parameters

FAILURE_RATE = 1e-8
PROBLEMS = all_problems()
THETA, T = 0.7, 0.45


def toy() -> None:
    b = ppgrad.policy("b", dist.Bernoulli(logits=parameters({"theta": THETA})["theta"]))
    ppgrad.reward("f", (b - T) ** 2)


def flat(hessian: dict[str, dict[str, Tensor]]) -> Tensor:
    return torch.cat([block.double().reshape(-1) for row in hessian.values() for block in row.values()])


def check(objective: Any, model: Any, guide: Any, exact: Tensor, seeds: int = 30) -> None:
    draws = torch.stack([flat(ppgrad.hessian(objective, model, guide, seed=seed)) for seed in range(seeds)])
    error = draws.mean(0) - exact
    rounding = 2e-4 * (1 + exact.abs())
    t = error.abs() / (draws.std(0) / seeds**0.5).clamp(min=1e-12)
    p = torch.as_tensor(2 * stats.t.sf(t.numpy(), seeds - 1))
    assert bool(((p > FAILURE_RATE / len(exact)) | (error.abs() < rounding)).all()), (draws.mean(0), exact, p)


def exact_hessian(problem: Problem) -> Tensor:
    """By differentiating the expectation that the problem has written out."""
    written = inspect.getclosurevars(problem.exact).nonlocals
    leaves = {name: (torch.as_tensor(v) * 1.0).requires_grad_() for name, v in written["initial"].items()}
    tensors = list(leaves.values())
    first = torch.autograd.grad(written["value"](leaves), tensors, create_graph=True)
    rows: list[list[Tensor]] = [[] for _ in tensors]
    blocks = []
    for gradient in first:
        rows = []
        for element in gradient.reshape(-1):
            found = (
                torch.autograd.grad(element, tensors, retain_graph=True, allow_unused=True)
                if element.requires_grad
                else [None] * len(tensors)
            )
            rows.append([torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)])
        blocks += [torch.stack([row[i] for row in rows]).double().reshape(-1) for i in range(len(tensors))]
    return torch.cat(blocks)


@pytest.mark.parametrize("estimator", [ScoreFunction(), ScoreFunction(LeaveOneOut()), Enumerate()], ids=repr)
def test_the_toy(estimator: Estimator) -> None:
    p = torch.sigmoid(torch.tensor(THETA, dtype=torch.float64))
    exact = p * (1 - p) * (1 - 2 * p) * (1 - 2 * T)
    check(ExpectedReturn(estimator, num_particles=2000), toy, None, exact.reshape(1))


QUICK = ["bernoulli_chain", "mixed", "normal_chain", "random_transition", "importance_mixed", "kl_regularized"]
SLOW = [
    "coupled_plate", "sequential_plate", "local_global_local", "discrete_elbo", "sequential_elbo", "max_ent_return",
    "entropic_risk", "best_of", "tail_risk",
]  # fmt: skip
CASES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("estimator", [None, ScoreFunction(LeaveOneOut()), Enumerate()], ids=repr)
@pytest.mark.parametrize("name", CASES)
def test_programs_with_closed_forms(name: str, estimator: Estimator | None) -> None:
    problem = PROBLEMS[name]
    sizes = (200, problem.options.get("num_importance", 1))

    def choose(message: Any) -> Estimator | None:
        return None if estimator is None or estimator.refuses(site_info(message, *sizes)) else estimator

    objective = problem.objective(sites=choose, num_particles=sizes[0], **problem.options)
    if estimator == Enumerate() and objective.couples_lanes:
        with pytest.raises(Unsupported, match="Enumerate cannot serve site"):
            ppgrad.hessian(objective, problem.model, problem.guide)
        return
    check(objective, problem.model, problem.guide, exact_hessian(problem))


def test_enumeration_is_exact() -> None:
    problem = PROBLEMS["bernoulli_chain"]
    found = flat(ppgrad.hessian(ExpectedReturn(Enumerate()), problem.model, seed=0))
    torch.testing.assert_close(found, exact_hessian(problem), rtol=1e-4, atol=1e-6)


def test_a_score_of_its_own_density_counts_at_second_order() -> None:
    """The term that ELBO leaves out of a gradient, whose mean is zero there, is the Fisher information here."""
    problem = PROBLEMS["conjugate_elbo"]
    check(
        ELBO(ScoreFunction(LeaveOneOut()), num_particles=20_000),
        problem.model,
        problem.guide,
        exact_hessian(problem),
        30,
    )


@pytest.mark.parametrize("estimator", [ScoreFunction(), ScoreFunction(LeaveOneOut())], ids=repr)
def test_baselines_lower_the_variance_of_second_derivatives(estimator: Estimator) -> None:
    def shifted() -> None:
        toy()
        ppgrad.reward("constant", torch.tensor(10.0))

    draws = [
        flat(ppgrad.hessian(ExpectedReturn(e, num_particles=20), shifted, seed=seed))
        for e in (ScoreFunction(), ScoreFunction(LeaveOneOut()))
        for seed in range(40)
    ]
    plain, less = torch.cat(draws[:40]).var(), torch.cat(draws[40:]).var()
    assert less < plain / 20


@pytest.mark.parametrize("name", ["mixed", "episodes", "importance_mixed"])
def test_hvp_is_the_hessian_times_a_vector(name: str) -> None:
    problem = PROBLEMS[name]
    objective = problem.objective(num_particles=4, **problem.options)
    hessian = ppgrad.hessian(objective, problem.model, problem.guide, seed=2)
    vector = {n: torch.randn(block[n].shape[: block[n].dim() // 2]) for n, block in hessian.items()}
    product = ppgrad.hvp(objective, problem.model, problem.guide, vector=vector, seed=2)
    for n, block in hessian.items():
        expected = sum(
            (torch.tensordot(block[other], v, v.dim()) for other, v in vector.items()), torch.zeros_like(vector[n])
        )
        torch.testing.assert_close(product[n], expected, rtol=1e-4, atol=1e-4)


def test_it_is_symmetric_and_pure() -> None:
    problem = PROBLEMS["episodes"]
    objective = ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=3)
    state = torch.get_rng_state()
    first, second = (ppgrad.hessian(objective, problem.model, seed=4) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(flat(first), flat(second))
    torch.testing.assert_close(first["theta"]["beta"], first["beta"]["theta"])
    assert not objective.all_orders
    assert not objective.memory


def test_a_program_in_a_loop() -> None:
    def turning() -> None:
        p = parameters({"theta": THETA})
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["theta"]))
        if b > 0:
            ppgrad.reward("f", ppgrad.policy("c", dist.Bernoulli(logits=2 * p["theta"])) * 1.0)
        else:
            ppgrad.reward("g", torch.tensor(0.3))

    theta = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    q = torch.sigmoid(theta)
    (first,) = torch.autograd.grad(q * torch.sigmoid(2 * theta) + 0.3 * (1 - q), theta, create_graph=True)
    (exact,) = torch.autograd.grad(first, theta)
    check(ExpectedReturn(ScoreFunction(), num_particles=100), turning, None, exact.reshape(1), 30)


@pytest.mark.parametrize("estimator", [DisARM(), LocalExpectation()], ids=repr)
def test_estimators_of_first_order_are_refused(estimator: Estimator) -> None:
    with pytest.raises(Unsupported, match="cannot serve site 'b' here: it estimates first derivatives only"):
        ppgrad.hessian(ExpectedReturn(estimator), toy)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (GroupRelative(), "Write ExpectedReturn"),
        (VarGrad(), "Write ELBO"),
        (KLRegularized(reference={"*": dist.Bernoulli(0.5)}, kind="k3"), "Write kind='k1', as_='reward'"),
    ],
    ids=repr,
)
def test_objectives_of_first_order_are_refused(objective: Any, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        ppgrad.hessian(objective, toy)


def test_a_sample_without_a_second_derivative_is_named() -> None:
    with pytest.raises(Unsupported, match=r"site 'x' here: the sample of Gamma has no second derivative"):
        ppgrad.hessian(ExpectedReturn(Pathwise()), PROBLEMS["gamma"].model, seed=0)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (None, r"write \{parameter: tensor\}"),
        ({}, "lacks parameter 'theta'"),
        ({"theta": torch.ones(2)}, r"has shape \(2,\) for 'theta'"),
        ({"theta": torch.ones(()), "phi": torch.ones(())}, "names 'phi'"),
    ],
)
def test_vectors_that_do_not_fit(vector: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ppgrad.hvp(ExpectedReturn(), toy, vector=vector)


def test_no_objective_and_a_bad_seed() -> None:
    with pytest.raises(InvalidInput, match="An objective is needed"):
        ppgrad.hessian(toy, toy)
    with pytest.raises(InvalidInput, match="seed=-1"):
        ppgrad.hessian(CVaR(level=0.5), toy, seed=-1)
    pyro.clear_param_store()
