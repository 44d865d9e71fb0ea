"""The conformance of a few members, which `make mutants` names; without names, of one, so that the file is run."""

from __future__ import annotations

import os

import pytest

from ppgrad.testing import (
    SUITE_FAILURE_RATE,
    Case,
    all_problems,
    check_constant_cost,
    check_mean,
    conformance_cases,
    estimator_examples,
)

MEMBERS = os.environ.get("PPGRAD_MEMBERS", "ARM").split(",")
PROBLEMS = os.environ.get("PPGRAD_PROBLEMS", "").split(",")


def _named() -> list[Case]:
    members = [
        one
        for one in estimator_examples()
        if {type(one).__name__, type(getattr(one, "baseline", None)).__name__} & {*MEMBERS}
    ]
    problems = {name: each for name, each in all_problems().items() if any(part in name for part in PROBLEMS)}
    return conformance_cases(members, problems)


CASES = _named()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_named_member_conforms(case: Case) -> None:
    check_mean(case, SUITE_FAILURE_RATE / (2 * len(CASES)))
    check_constant_cost(case, SUITE_FAILURE_RATE / (2 * len(CASES)))
