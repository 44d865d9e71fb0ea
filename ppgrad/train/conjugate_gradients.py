"""Conjugate gradients: solve A x = b with products of A only."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Solution(NamedTuple):
    """x, how many products it took, and ‖A x − b‖ / ‖b‖."""

    x: Tensor
    iterations: int
    residual: float


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float = 1e-6
) -> Solution:
    """Solve A x = b for a symmetric, positive semidefinite A, from x = 0.

    In exact arithmetic n iterations solve it for n numbers, and as many as A has different
    eigenvalues suffice. It stops early at a relative residual of ``tolerance``, and where A has no
    positive curvature along the way.

    Source: Hestenes & Stiefel (1952), Methods of conjugate gradients for solving linear systems, eq. 3:1.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual, residual @ residual
    target = float(tolerance**2 * square)
    used = 0
    while used < iterations and float(square) > target:
        image = product(direction)
        used += 1
        curvature = direction @ image
        if not float(curvature) > 0:
            break
        length = square / curvature
        x = x + length * direction
        residual = residual - length * image
        previous, square = square, residual @ residual
        direction = residual + square / previous * direction
    return Solution(x, used, float((square / (b @ b)).sqrt()) if float(b @ b) > 0 else 0.0)
