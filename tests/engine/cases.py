"""A few of the cases of conformance."""

from __future__ import annotations

import itertools
from functools import cache

from ppgrad.testing import Case, all_problems, estimator_examples
from ppgrad.testing.conformance import serves


@cache
def one_problem_each() -> list[Case]:
    """Each example of each estimator, on the first problem that it serves."""
    found, problems = [], all_problems()
    for estimator in estimator_examples():
        served = (Case(estimator, name, problem) for name, problem in problems.items() if serves(estimator, problem))
        found += itertools.islice(served, 1)
    return found
