"""Measuring: one gradient, replicates of it, references, comparisons, rollouts."""

from ppgrad.measure.compare import compare
from ppgrad.measure.exact import exact_gradient
from ppgrad.measure.gradient import gradient
from ppgrad.measure.measurement import Measurement, measure, ready
from ppgrad.measure.rollouts import rollouts

__all__ = ["Measurement", "compare", "exact_gradient", "gradient", "measure", "ready", "rollouts"]
