"""Checks of what a policy is built with; each error names the argument and the mend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppgrad.core import InvalidInput

Bounds = tuple[Any, Any]
"""The lowest and the highest action: numbers, or one number for each action."""


def whole(where: str, name: str, value: Any, least: int = 1) -> int:
    """``value`` as an integer from ``least`` up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(f"{where}({name}={value!r}): write an integer from {least} up.")
    return value


def widths(where: str, hidden: Any) -> tuple[int, ...]:
    """The widths of hidden layers."""
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise InvalidInput(
            f"{where}(hidden={hidden!r}): write the width of each hidden layer, such as hidden=(64, 64)."
        )
    return tuple(whole(where, "hidden", width) for width in hidden)


def module_class(where: str, activation: Any) -> type[nn.Module]:
    """A module's class, to be called without arguments."""
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        raise InvalidInput(f"{where}(activation={activation!r}): write a module's class, such as torch.nn.Tanh.")
    return activation


def positive(where: str, name: str, value: Any) -> float:
    """``value`` as a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInput(f"{where}({name}={value!r}): write a positive, finite number.")
    return float(value)


def flag(where: str, name: str, value: Any) -> bool:
    """``value``, which is True or False."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{where}({name}={value!r}): write True or False.")
    return value


def one_of(where: str, name: str, value: Any, choices: Sequence[str]) -> str:
    """``value``, which is one of ``choices``."""
    if value not in choices:
        raise InvalidInput(f"{where}({name}={value!r}): write one of {', '.join(map(repr, choices))}.")
    return str(value)


def one_for_each(where: str, name: str, value: Any, actions: int, written: Any = None) -> Tensor:
    """``value`` as a finite tensor of shape ``(actions,)``; ``written`` is what a person wrote, if that is more."""
    written = value if written is None else written
    try:
        tensor = torch.as_tensor(value, dtype=torch.get_default_dtype())
        tensor = tensor.detach().expand(actions).clone()
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInput(
            f"{where}({name}={written!r}): write one number, or one for each of the {actions} actions."
        ) from None
    if not bool(torch.isfinite(tensor).all()):
        raise InvalidInput(f"{where}({name}={written!r}): write finite numbers.")
    return tensor


def limits(where: str, bounds: Any, actions: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest action, each of shape ``(actions,)``."""
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InvalidInput(f"{where}(bounds={bounds!r}): write (low, high), each a number or one for each action.")
    low, high = (one_for_each(where, "bounds", bound, actions, bounds) for bound in bounds)
    if not bool((low < high).all()):
        raise InvalidInput(f"{where}(bounds={bounds!r}): write every low below its high.")
    return low, high
