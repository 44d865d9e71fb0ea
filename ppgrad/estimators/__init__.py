"""Estimators, one a file. A new one is a file and a line here."""

from ppgrad.core.estimator import Estimator
from ppgrad.estimators.enumerate import Enumerate
from ppgrad.estimators.pathwise import Pathwise
from ppgrad.estimators.score_function import ScoreFunction

__all__ = ["Enumerate", "Pathwise", "ScoreFunction", "all_estimators"]


def all_estimators() -> tuple[type[Estimator], ...]:
    """Every estimator class, in alphabetical order.

    >>> [estimator.__name__ for estimator in all_estimators()]
    ['Enumerate', 'Pathwise', 'ScoreFunction']
    """
    return tuple(globals()[name] for name in sorted(__all__) if name != "all_estimators")
