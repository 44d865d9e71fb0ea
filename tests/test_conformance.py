"""Every estimator, each of its examples, on every problem that it can serve."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor

from ppgrad.core import Draw, Estimator, Memory, Signal
from ppgrad.estimators import ScoreFunction
from ppgrad.testing import (
    SUITE_FAILURE_RATE,
    Case,
    all_problems,
    check_constant_cost,
    check_float64,
    check_mean,
    check_pure,
    conformance_cases,
    estimator_examples,
)

CASES = conformance_cases()
# check_mean and check_constant_cost here, and as many again for the tests of variances and models.
FAILURE_RATE = SUITE_FAILURE_RATE / (4 * len(CASES))
# The means are compared by `make test`; of what follows it has one case in three, `make proof` the others.
SOME_CASES = [case if i % 3 == 0 else pytest.param(case, marks=pytest.mark.proof) for i, case in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_mean(case: Case) -> None:
    check_mean(case, FAILURE_RATE)


@pytest.mark.parametrize("case", SOME_CASES, ids=str)
def test_constant_cost(case: Case) -> None:
    check_constant_cost(case, FAILURE_RATE)


@pytest.mark.parametrize("case", SOME_CASES, ids=str)
def test_float64(case: Case) -> None:
    check_float64(case)


@pytest.mark.parametrize("case", SOME_CASES, ids=str)
def test_pure(case: Case) -> None:
    check_pure(case)


@pytest.mark.parametrize("estimator", [e for e in estimator_examples() if not e.facts.biased], ids=repr)
def test_every_example_runs_on_a_problem(estimator: Estimator) -> None:
    assert any(case.estimator is estimator or repr(case.estimator) == repr(estimator) for case in CASES)


def test_every_problem_is_run() -> None:
    assert {case.name for case in CASES} == set(all_problems())


@dataclass(frozen=True)
class WrongSign(ScoreFunction):
    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return -super().surrogate(draw, signal, memory)


@dataclass(frozen=True)
class OwnSignalInBaseline(ScoreFunction):
    """The mistake of a leave-one-out that leaves none out: a factor (n − 1) / n."""

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return draw.log_prob * (signal.value - signal.value.mean(0, keepdim=True))


@pytest.mark.parametrize("planted", [WrongSign(), OwnSignalInBaseline()], ids=repr)
def test_a_planted_bias_is_found(planted: Estimator) -> None:
    cases = conformance_cases([planted])
    failures = 0
    for case in cases:
        try:
            check_mean(case, FAILURE_RATE)
        except AssertionError:
            failures += 1
    assert failures == len(cases)
