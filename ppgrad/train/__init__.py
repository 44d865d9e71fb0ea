"""Training: the loop, its checkpoints and its logs; the natural gradient."""

from ppgrad.train.fit import fit
from ppgrad.train.natural_gradient import NaturalGradient

__all__ = ["NaturalGradient", "fit"]
