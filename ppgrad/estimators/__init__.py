"""Estimators, one a file. A new one is a file and a line here."""

from ppgrad.core import Estimator
from ppgrad.estimators.arm import ARM
from ppgrad.estimators.disarm import DisARM
from ppgrad.estimators.double_control_variate import DoubleControlVariate
from ppgrad.estimators.dreg import DReG
from ppgrad.estimators.enumerate import Enumerate
from ppgrad.estimators.evolution_strategies import EvolutionStrategies
from ppgrad.estimators.finite_difference import FiniteDifference
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
from ppgrad.estimators.spsa import SPSA
from ppgrad.estimators.sticking_the_landing import StickingTheLanding
from ppgrad.estimators.stochastic_perturbation import StochasticPerturbation
from ppgrad.estimators.straight_through import StraightThrough
from ppgrad.estimators.sum_and_sample import SumAndSample
from ppgrad.estimators.unordered_set import UnorderedSet

__all__ = [
    "ARM",
    "REBAR",
    "RELAX",
    "SPSA",
    "DReG",
    "DisARM",
    "DoubleControlVariate",
    "Enumerate",
    "EvolutionStrategies",
    "FiniteDifference",
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
    "StochasticPerturbation",
    "StraightThrough",
    "SumAndSample",
    "UnorderedSet",
    "all_estimators",
]


def all_estimators() -> tuple[type[Estimator], ...]:
    """Every estimator class, in alphabetical order.

    >>> [estimator.__name__ for estimator in all_estimators()]  # doctest: +NORMALIZE_WHITESPACE
    ['ARM', 'DReG', 'DisARM', 'DoubleControlVariate', 'Enumerate', 'EvolutionStrategies', 'FiniteDifference',
     'GumbelRao', 'GumbelSoftmax', 'Interpolated', 'InverseVariance', 'LocalExpectation', 'MeasureValued',
     'MuProp', 'Pathwise', 'REBAR', 'RELAX', 'ReinMax', 'Rodeo', 'SPSA', 'ScoreFunction', 'StickingTheLanding',
     'StochasticPerturbation', 'StraightThrough', 'SumAndSample', 'UnorderedSet']

    Returns:
        The classes, each with `examples` of its instances.

    Raises: nothing.
    """
    return tuple(globals()[name] for name in sorted(__all__) if name != "all_estimators")
