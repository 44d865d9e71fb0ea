"""Estimators, one a file. A new one is a file and a line here."""

from ppgrad.core.estimator import Estimator
from ppgrad.estimators.arm import ARM
from ppgrad.estimators.disarm import DisARM
from ppgrad.estimators.enumerate import Enumerate
from ppgrad.estimators.local_expectation import LocalExpectation
from ppgrad.estimators.measure_valued import MeasureValued
from ppgrad.estimators.pathwise import Pathwise
from ppgrad.estimators.rebar import REBAR
from ppgrad.estimators.score_function import ScoreFunction

__all__ = [
    "ARM",
    "REBAR",
    "DisARM",
    "Enumerate",
    "LocalExpectation",
    "MeasureValued",
    "Pathwise",
    "ScoreFunction",
    "all_estimators",
]


def all_estimators() -> tuple[type[Estimator], ...]:
    """Every estimator class, in alphabetical order.

    >>> [estimator.__name__ for estimator in all_estimators()]
    ['ARM', 'DisARM', 'Enumerate', 'LocalExpectation', 'MeasureValued', 'Pathwise', 'REBAR', 'ScoreFunction']
    """
    return tuple(globals()[name] for name in sorted(__all__) if name != "all_estimators")
