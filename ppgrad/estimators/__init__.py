"""Estimators, one a file. A new one is a file and a line here."""

from ppgrad.core.estimator import Estimator
from ppgrad.estimators.arm import ARM
from ppgrad.estimators.disarm import DisARM
from ppgrad.estimators.double_control_variate import DoubleControlVariate
from ppgrad.estimators.dreg import DReG
from ppgrad.estimators.enumerate import Enumerate
from ppgrad.estimators.gumbel_rao import GumbelRao
from ppgrad.estimators.gumbel_softmax import GumbelSoftmax
from ppgrad.estimators.interpolated import Interpolated
from ppgrad.estimators.inverse_variance import InverseVariance
from ppgrad.estimators.local_expectation import LocalExpectation
from ppgrad.estimators.measure_valued import MeasureValued
from ppgrad.estimators.muprop import MuProp
from ppgrad.estimators.pathwise import Pathwise
from ppgrad.estimators.rebar import REBAR
from ppgrad.estimators.reinmax import ReinMax
from ppgrad.estimators.relax import RELAX
from ppgrad.estimators.rodeo import Rodeo
from ppgrad.estimators.score_function import ScoreFunction
from ppgrad.estimators.sticking_the_landing import StickingTheLanding
from ppgrad.estimators.straight_through import StraightThrough

__all__ = [
    "ARM",
    "REBAR",
    "RELAX",
    "DReG",
    "DisARM",
    "DoubleControlVariate",
    "Enumerate",
    "GumbelRao",
    "GumbelSoftmax",
    "Interpolated",
    "InverseVariance",
    "LocalExpectation",
    "MeasureValued",
    "MuProp",
    "Pathwise",
    "ReinMax",
    "Rodeo",
    "ScoreFunction",
    "StickingTheLanding",
    "StraightThrough",
    "all_estimators",
]


def all_estimators() -> tuple[type[Estimator], ...]:
    """Every estimator class, in alphabetical order.

    >>> [estimator.__name__ for estimator in all_estimators()]
    ['ARM', 'DisARM', 'Enumerate', 'LocalExpectation', 'MeasureValued', 'Pathwise', 'REBAR', 'ScoreFunction']
    """
    return tuple(globals()[name] for name in sorted(__all__) if name != "all_estimators")
