"""A term of a weak derivative, and the noise that such terms are drawn with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppgrad.estimators.discrete.elements import uniform


class Pair(NamedTuple):
    """c θ (f(x⁺) − f(x⁻)), whose gradient in θ is a term of the estimate.

    Args:
        weight: c θ, of the shape of the site's elements, with the graph to θ.
        plus: x⁺, of the shape of the site's value; None for the value drawn.
        minus: x⁻, likewise.
    """

    weight: Tensor
    plus: Tensor | None = None
    minus: Tensor | None = None


def exponential(like: Tensor) -> Tensor:
    """Exponential(1) noise in the shape of a tensor."""
    return -uniform(like).log()


def rayleigh(like: Tensor) -> Tensor:
    """Rayleigh(1) noise in the shape of a tensor."""
    return (2 * exponential(like)).sqrt()


def normal(like: Tensor) -> Tensor:
    """Standard normal noise in the shape of a tensor."""
    return torch.normal(torch.zeros_like(like), 1.0)


def double_sided_maxwell(like: Tensor) -> Tensor:
    """The length of three normals with a random sign, density x² exp(−x²/2) / √(2π)."""
    length = torch.stack([normal(like) for _ in range(3)]).square().sum(0).sqrt()
    return torch.where(uniform(like) < 0.5, -length, length)
