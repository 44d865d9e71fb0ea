"""What every estimator must do, on every problem that it can serve.

    for case in conformance_cases():
        check_mean(case, failure_rate=1e-5 / len(conformance_cases()))

A check raises `AssertionError`. Its failure rate is the chance that a correct estimator fails it;
divide the rate of the whole suite by the number of checks.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch

import ppgrad
from ppgrad.analysis import describe
from ppgrad.baselines import all_baselines
from ppgrad.core import Estimator, NoGradientPath, Problem, Unsupported
from ppgrad.engine.program.program import program_of
from ppgrad.engine.running.site import site_info
from ppgrad.estimators import ScoreFunction, all_estimators
from ppgrad.measurement import gradient, ready
from ppgrad.measurement.gradient import pure
from ppgrad.measurement.replicates import replicate
from ppgrad.objectives import Objective
from ppgrad.testing.problems import all_problems

SUITE_FAILURE_RATE = 1e-5
"""The chance that a correct library fails the statistical tests of the whole suite."""

PARTICLES = 2


@dataclass(frozen=True)
class Case:
    """An estimator on a problem that it can serve; ``compile`` as for `Objective`."""

    estimator: Estimator
    name: str
    problem: Problem
    compile: bool | str = False

    def __str__(self) -> str:
        return f"{self.estimator!r}-{self.name}".replace(" ", "")

    @property
    def objective(self) -> Objective:
        """The problem's objective, with the estimator wherever it can serve and the default elsewhere."""
        options = {"num_particles": PARTICLES, "compile": self.compile, **self.problem.options}
        return self.problem.objective(sites=_wherever(self.estimator, [], self.problem), **options)


def estimator_examples() -> list[Estimator]:
    """Every example of every estimator, and the score function with every example of every baseline."""
    own = [example for estimator in all_estimators() for example in estimator.examples()]
    return own + [ScoreFunction(example) for baseline in all_baselines() for example in baseline.examples()]


def conformance_cases(
    estimators: list[Estimator] | None = None, problems: Mapping[str, Problem] | None = None
) -> list[Case]:
    """Every pair of an estimator's example and a problem that has a site for it."""
    estimators = estimator_examples() if estimators is None else estimators
    problems = all_problems() if problems is None else problems
    return [
        Case(estimator, name, problem)
        for estimator in estimators
        for name, problem in problems.items()
        if serves(estimator, problem)
    ]


def serves(estimator: Estimator, problem: Problem) -> bool:
    """Whether some site of the problem takes the estimator, which may then be unbiased there."""
    facts = estimator.account
    if facts.biased or (facts.reparameterized and not facts.finds_jumps and not problem.smooth):
        return False
    served: list[str] = []
    objective = problem.objective(
        sites=_wherever(estimator, served, problem), num_particles=PARTICLES, **problem.options
    )
    with pure(0, program_of(problem.model, problem.guide, problem.args)), warnings.catch_warnings():
        warnings.simplefilter("ignore", NoGradientPath)
        try:
            ready(objective, problem.model, problem.guide, problem.args, None)
        except Unsupported:
            return False
    return bool(served)


def _wherever(
    estimator: Estimator, served: list[str], problem: Problem
) -> Callable[[Mapping[str, Any]], Estimator | None]:
    sizes = problem.objective(num_particles=PARTICLES, **problem.options).sizes

    def choose(message: Mapping[str, Any]) -> Estimator | None:
        if estimator.refusal(site_info(message, *sizes[:3])) is not None:
            return None
        served.append(message["name"])
        return estimator

    return choose


def check_mean(case: Case, failure_rate: float, replicates: int = 20_000, seed: int = 0) -> None:
    """The mean of replicates is the exact gradient, by a t test for each component."""
    problem, objective = case.problem, case.objective
    assert problem.exact is not None, f"{case.name} has no exact gradient"
    exact = problem.exact()
    with pure(seed, program_of(problem.model, problem.guide, problem.args)):
        prepared = ready(objective, problem.model, problem.guide, problem.args, None)
        found = replicate(objective, prepared, replicates, seed, None)
    assert set(found.draws) == set(exact), f"{case}: parameters {set(found.draws)}, expected {set(exact)}"
    components = sum(gradient.numel() for gradient in exact.values())
    for name, draws in found.draws.items():
        statistics = describe(draws.numpy(), exact[name].detach().numpy())
        # Rounding of single-precision sums is no bias.
        rounding = abs(statistics.bias) <= 1e-5 * (1 + abs(exact[name].detach().numpy()))
        failed = (statistics.p_value < failure_rate / components) & ~rounding
        assert not failed.any(), (
            f"{case}: the mean of '{name}' is {statistics.mean}, the exact gradient {exact[name]}, "
            f"p = {statistics.p_value}"
        )


def check_constant_cost(case: Case, failure_rate: float, replicates: int = 20_000, seed: int = 1) -> None:
    """A constant added to the cost leaves the mean alone."""

    def shifted(*args: Any, **kwargs: Any) -> Any:
        result = case.problem.model(*args, **kwargs)
        ppgrad.cost("constant", 3.0)
        return result

    check_mean(replace(case, problem=replace(case.problem, model=shifted)), failure_rate, replicates, seed)


def check_float64(case: Case) -> None:
    """Under a double-precision default the gradient is finite and double."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = gradient(case.objective, case.problem.model, case.problem.guide, case.problem.args, seed=0)
    finally:
        torch.set_default_dtype(default)
    for name, value in found.items():
        assert value.dtype == torch.float64, f"{case}: the gradient of '{name}' is {value.dtype}"
        assert torch.isfinite(value).all(), f"{case}: the gradient of '{name}' is {value}"


def check_pure(case: Case) -> None:
    """One seed, one gradient; nothing outside of the call changes."""
    objective = case.objective
    before = copy.deepcopy(case.estimator)
    state = torch.get_rng_state()
    store = set(pyro.get_param_store())
    first = gradient(objective, case.problem.model, case.problem.guide, case.problem.args, seed=3)
    second = gradient(objective, case.problem.model, case.problem.guide, case.problem.args, seed=3)
    for name in first:
        assert torch.equal(first[name], second[name]), f"{case}: one seed gave two gradients of '{name}'"
    assert torch.equal(torch.get_rng_state(), state), f"{case}: the global generator moved"
    assert set(pyro.get_param_store()) == store, f"{case}: the param store changed"
    assert not objective.memory, f"{case}: measuring trained a baseline"
    assert repr(before) == repr(case.estimator), f"{case}: the estimator changed"
