"""How a learned baseline or control variate is called over lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ppgrad.core.errors import InvalidProgram


def over_lanes(function: Callable[..., Tensor], inputs: Any) -> Tensor:
    """Call ``function`` on each lane of ``inputs``, as the program would have called it."""
    lanes = tree_leaves(inputs)[0].shape[:2]
    if lanes == (1, 1):
        return function(tree_map(lambda x: x[0, 0], inputs))[None, None]
    return torch.vmap(torch.vmap(function, randomness="different"), randomness="different")(inputs)


def predicted(function: Callable[..., Tensor], inputs: Any, signal: Tensor, site: str, what: str = "critic") -> Tensor:
    """What a module makes of its inputs over lanes, in the padded shape of the signal.

    Raises:
        InvalidProgram: the module cannot take the inputs, or returns another shape.
    """
    try:
        values = over_lanes(function, inputs)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shapes = ", ".join(str(tuple(leaf.shape[2:])) for leaf in tree_leaves(inputs))
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InvalidProgram(
            f"The {what} of site '{site}' cannot take its input of shape {shapes} ({reason}). "
            + (
                "Give its first layer as many features as the input's last dimension has."
                if isinstance(inputs, Tensor)
                else f"The input is a {type(inputs).__name__}: write a module whose forward takes its parts."
            )
        ) from error
    return fit_to_signal(values, signal, site, what)


def fit_to_signal(values: Tensor, signal: Tensor, site: str, what: str = "critic") -> Tensor:
    """Give a prediction the padded shape of the signal; a trailing feature of size one may go.

    Raises:
        InvalidProgram: it has another shape.
    """
    plates = signal.shape[2:]
    for shape in (values.shape[2:], values.shape[2:-1] if values.shape[-1:] == (1,) else None):
        if shape is not None and len(shape) <= len(plates) and shape == plates[len(plates) - len(shape) :]:
            return values.reshape(*values.shape[:2], *[1] * (len(plates) - len(shape)), *shape)
    raise InvalidProgram(
        f"The {what} of site '{site}' returned shape {tuple(values.shape[2:])}, and the signal has shape "
        f"{tuple(plates)}. Return one number for each element of the site's plates."
    )


class Frozen:
    """``module`` as a function that passes gradients to its inputs, and none to its parameters.

    A program that holds one does not train it: it has no attributes for `ppgrad.engine.program.program` to look into.
    """

    __slots__ = ("_module",)

    def __init__(self, module: torch.nn.Module):
        self._module = module

    def __call__(self, *inputs: Any) -> Tensor:
        tensors = [*self._module.named_parameters(), *self._module.named_buffers()]
        return torch.func.functional_call(self._module, {name: tensor.detach() for name, tensor in tensors}, inputs)
