"""Measuring: one gradient, replicates of it, references, comparisons, rollouts."""

from ppgrad.measurement.compare import compare
from ppgrad.measurement.exact import exact_gradient
from ppgrad.measurement.fisher import fisher, fisher_vector_product
from ppgrad.measurement.gradient import gradient
from ppgrad.measurement.higher_order import hessian, hvp
from ppgrad.measurement.measure import Measurement, measure, ready
from ppgrad.measurement.program_dependence import dependence
from ppgrad.measurement.rollouts import rollouts
from ppgrad.measurement.score import score

__all__ = [
    "Measurement",
    "compare",
    "dependence",
    "exact_gradient",
    "fisher",
    "fisher_vector_product",
    "gradient",
    "hessian",
    "hvp",
    "measure",
    "ready",
    "rollouts",
    "score",
]
