"""Checks of what a person passes to an estimator."""

from __future__ import annotations

import math

from ppgrad.core.errors import InvalidInput


def positive(owner: str, name: str, value: float, example: float) -> None:
    """Raise unless ``value`` is a finite number above 0.

    Raises:
        InvalidInput: says what to write.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInput(f"{owner}({name}={value!r}): {name} is a number above 0. Write {owner}({name}={example}).")


def at_least(owner: str, name: str, value: int, least: int) -> None:
    """Raise unless ``value`` is an integer of ``least`` or more.

    Raises:
        InvalidInput: says what to write.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(
            f"{owner}({name}={value!r}): {name} is an integer from {least} up. Write {owner}({name}={least})."
        )


def within(owner: str, name: str, value: float, low: float, high: float) -> None:
    """Raise unless ``value`` lies in [low, high].

    Raises:
        InvalidInput: says what to write.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidInput(f"{owner}({name}={value!r}): {name} lies in [{low}, {high}]. Write {owner}({name}={high}).")
