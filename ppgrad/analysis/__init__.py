"""Comparisons of gradient estimators: statistics, tables, ArviZ, pictures. Needs neither torch nor pyro."""

from ppgrad.analysis.bias_test import smallest_bias_found
from ppgrad.analysis.comparison import Comparison
from ppgrad.analysis.comparison_data import ComparisonData, EstimatorDraws
from ppgrad.analysis.dependence import ProgramDependence, SiteDependence
from ppgrad.analysis.history import History
from ppgrad.analysis.statistics import Pair, Statistics, describe, paired
from ppgrad.analysis.tail import Tail, pareto_khat

__all__ = [
    "Comparison",
    "ComparisonData",
    "EstimatorDraws",
    "History",
    "Pair",
    "ProgramDependence",
    "SiteDependence",
    "Statistics",
    "Tail",
    "describe",
    "paired",
    "pareto_khat",
    "smallest_bias_found",
]
