"""A backend of opt_einsum: sums of products in logarithms, as ``pyro.ops.einsum.torch_log``, for any lanes.

That one can neither run under ``torch.func.vmap`` nor tell a sum of terms that are each too small for a floating-point
number, such as exp(0) exp(−200) + exp(−200) exp(0), from zero. This one keeps both terms in logarithms, and multiplies
matrices only where that would take too much memory.
"""

from __future__ import annotations

import math

import torch
from pyro.ops.einsum.util import Tensordot
from torch import Tensor

MOST_AT_ONCE = 2**23
"""How many numbers a product may hold before it is summed; larger ones are products of matrices."""


def lowest(dtype: torch.dtype) -> float:
    """Stands for log 0 inside of a contraction, so that no gradient is 0 · ∞; every log density lies above."""
    return torch.finfo(dtype).min / 1024


def transpose(a: Tensor, axes: tuple[int, ...]) -> Tensor:
    """``a`` with its dimensions in another order."""
    return a.permute(axes)


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """log Σ exp of the sum of ``operands``, over the dimensions that the output has not."""
    inputs, output = equation.split("->")
    each = inputs.split(",")
    summed = "".join(sorted(set(inputs) - set(output) - {","}))
    aligned = [_aligned(operand, own, output + summed) for operand, own in zip(operands, each, strict=True)]
    if summed and len(operands) == 2 and _size(aligned) > MOST_AT_ONCE:
        return _multiplied(equation, operands, each, output)
    total = sum(aligned[1:], aligned[0])
    if not summed:
        return total.clone() if len(operands) == 1 else total
    return total.clamp(min=lowest(total.dtype)).logsumexp(tuple(range(-len(summed), 0)))


tensordot = Tensordot(einsum)


def _aligned(operand: Tensor, own: str, dims: str) -> Tensor:
    """``operand`` with its dimensions in the order of ``dims``, ones where it has none."""
    ordered = operand.permute([own.index(dim) for dim in dims if dim in own])
    return ordered[tuple(slice(None) if dim in own else None for dim in dims)]


def _size(aligned: list[Tensor]) -> int:
    """How many numbers the product of tensors of as many dimensions holds."""
    return math.prod(map(max, *(x.shape for x in aligned)))


def _multiplied(equation: str, operands: tuple[Tensor, ...], each: list[str], output: str) -> Tensor:
    """The same by a product of matrices, each operand less its greatest number."""
    product, shifts = [], []
    for operand, own in zip(operands, each, strict=True):
        dims = [i for i, dim in enumerate(own) if dim not in output]
        operand = operand.clamp(min=lowest(operand.dtype))
        shift = operand.detach().amax(dims, keepdim=True) if dims else operand.detach()
        product.append((operand - shift).exp())
        kept = shift.squeeze(dims) if dims else shift
        shifts.append(_aligned(kept, "".join(dim for dim in own if dim in output), output))
    result = torch.einsum(equation, *product)
    tiny = torch.finfo(result.dtype).tiny
    log = torch.where(result > 0, result.clamp(min=tiny).log(), lowest(result.dtype))
    return sum(shifts, log)
