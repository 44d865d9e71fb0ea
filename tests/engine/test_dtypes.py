"""Double precision stays double; under bfloat16 autocast gradients come in their parameter's type."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad.core import Unsupported
from ppgrad.engine.program.program import program_of
from ppgrad.measurement.gradient import pure
from ppgrad.testing import Case, estimator_examples
from tests.engine.cases import one_problem_each

FEW = one_problem_each()


def continuous(dtype: torch.dtype) -> Any:
    def program() -> None:
        loc = pyro.param("loc", torch.tensor([1.0, -1.0], dtype=dtype))
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.Normal(loc, torch.ones_like(loc)), context=torch.arange(2))
            assert x.dtype == dtype
            ppgrad.cost("f", (x - 0.3) ** 2)

    return program


def discrete(dtype: torch.dtype) -> Any:
    def program() -> None:
        logits = pyro.param("logits", torch.tensor([1.0, -1.0], dtype=dtype))
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.Bernoulli(logits=logits), context=torch.arange(2))
            assert x.dtype == dtype
            ppgrad.cost("f", (x - 0.3) ** 2)

    return program


@pytest.mark.parametrize("estimator", estimator_examples(), ids=repr)
def test_double_parameters_have_double_gradients_under_a_single_default(estimator: ppgrad.Estimator) -> None:
    served = 0
    for program in (continuous(torch.float64), discrete(torch.float64)):
        objective = ppgrad.ExpectedReturn(estimator, num_particles=3)
        with pure(0, program_of(program)):
            try:
                prepared = objective.prepare(program)
            except Unsupported:
                continue
            estimate = objective.estimate(prepared.executor)
            assert estimate.loss.dtype == estimate.surrogate.dtype == torch.float64
            assert {draw.log_prob.dtype for draw, _, _ in estimate.served} <= {torch.float64}
            assert {signal.value.dtype for _, signal, _ in estimate.served} <= {torch.float64}
            assert all(site.dtype == torch.float64 for site in prepared.executor.known.noises.values())
        for value in ppgrad.gradient(objective, program, seed=0).values():
            assert value.dtype == torch.float64
            assert torch.isfinite(value).all()
        served += 1
    assert served or "DReG" in repr(estimator) or "VIMCO" in repr(estimator), "these two serve a bound alone"


@pytest.mark.parametrize("case", FEW, ids=str)
def test_autocast_around_a_gradient(case: Case) -> None:
    problem = case.problem
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ppgrad.gradient(case.objective, problem.model, problem.guide, problem.args, seed=0)
    for value in found.values():
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()


def network_policy(inside: bool) -> tuple[Any, torch.nn.Module]:
    policy = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    features = torch.linspace(-1, 1, 20).reshape(5, 4)

    def program(policy: torch.nn.Module) -> None:
        pyro.module("policy", policy)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside or torch.is_autocast_enabled("cpu")):
            logits = policy(features)
        assert logits.dtype == torch.bfloat16
        with pyro.plate("n", 5):
            a = ppgrad.policy("a", dist.Categorical(logits=logits))
            ppgrad.cost("f", (a - 1.0) ** 2)

    return program, policy


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "around"])
@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize(
    "estimator",
    [
        ppgrad.ScoreFunction(),
        ppgrad.ScoreFunction(ppgrad.MovingAverage()),
        ppgrad.LocalExpectation(),
        ppgrad.UnorderedSet(),
    ],
    ids=repr,
)
def test_a_network_in_bfloat16(estimator: ppgrad.Estimator, particles: int, inside: bool) -> None:
    program, policy = network_policy(inside)
    objective = ppgrad.ExpectedReturn(estimator, num_particles=particles)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not inside):
        loss = objective.differentiable_loss(program, None, policy)
        loss.backward()
        assert loss.dtype == torch.float32, "costs are added up in single precision"
    for parameter in policy.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("particles", [1, 2])
def test_costs_of_half_precision_are_added_up_in_single(particles: int) -> None:
    def program() -> None:
        logits = pyro.param("logits", torch.tensor(0.3, dtype=torch.bfloat16))
        x = ppgrad.policy("x", dist.Bernoulli(logits=logits))
        for t in range(400):  # in bfloat16 256 + 1 is 256
            ppgrad.cost(f"c_{t}", 1.0 + 0.0 * x)

    objective = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(), num_particles=particles)
    with pure(0, program_of(program)):
        estimate = objective.estimate(objective.prepare(program).executor)
    assert float(estimate.loss) == 400
    assert all((signal.value == 400).all() for _, signal, _ in estimate.served)
    (value,) = ppgrad.gradient(objective, program, seed=0).values()
    assert value.dtype == torch.bfloat16


@pytest.mark.parametrize("estimator", [ppgrad.ScoreFunction(), ppgrad.Pathwise()], ids=repr)
def test_compiled(estimator: ppgrad.Estimator) -> None:
    objective = ppgrad.ExpectedReturn(estimator, num_particles=3, compile="eager")
    (value,) = ppgrad.gradient(objective, continuous(torch.float64), seed=0).values()
    assert value.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (value,) = ppgrad.gradient(objective, continuous(torch.float32), seed=0).values()
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
