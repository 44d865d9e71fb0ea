"""Training: the loop, its checkpoints and its logs."""

from ppgrad.train.fit import fit

__all__ = ["fit"]
