"""The conformance kit: problems with known gradients, and checks for estimators of your own."""

from ppgrad.testing.conformance import (
    PARTICLES,
    SUITE_FAILURE_RATE,
    Case,
    check_constant_cost,
    check_float64,
    check_mean,
    check_pure,
    conformance_cases,
    estimator_examples,
    serves,
)
from ppgrad.testing.problems import all_problems

__all__ = [
    "PARTICLES",
    "SUITE_FAILURE_RATE",
    "Case",
    "all_problems",
    "check_constant_cost",
    "check_float64",
    "check_mean",
    "check_pure",
    "conformance_cases",
    "estimator_examples",
    "serves",
]
