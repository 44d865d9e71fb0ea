"""Training: the natural gradient."""

from ppgrad.train.natural_gradient import NaturalGradient

__all__ = ["NaturalGradient"]
