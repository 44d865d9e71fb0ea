"""Checks of what a person passes to an estimator."""

from __future__ import annotations

import math
import operator
from numbers import Integral

from ppgrad.core.errors import InvalidInput


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shown(value: object) -> str:
    """``value`` in a line: its class, where what it says of itself takes more."""
    text = repr(value)
    return text if "\n" not in text else f"{type(value).__name__}(…)"


def finite(owner: str, name: str, value: float, example: float) -> None:
    """Raise unless ``value`` is a finite number.

    Raises:
        InvalidInput: says what to write.
    """
    if not is_number(value):
        raise InvalidInput(f"{owner}({name}={value!r}): {name} is a finite number. Write {owner}({name}={example}).")


def not_negative(owner: str, name: str, value: float, example: float) -> None:
    """Raise unless ``value`` is a finite number, 0 or more.

    Raises:
        InvalidInput: says what to write.
    """
    if not is_number(value) or value < 0:
        raise InvalidInput(
            f"{owner}({name}={value!r}): the {name} is 0 or more, and finite. Write {owner}({name}={example})."
        )


def flag(owner: str, name: str, value: bool) -> None:
    """Raise unless ``value`` is a truth value.

    Raises:
        InvalidInput: says what to write.
    """
    if not isinstance(value, bool):
        raise InvalidInput(f"{owner}({name}={value!r}): {name} is True or False. Write {owner}({name}=True).")


def share(owner: str, name: str, value: float, example: float) -> None:
    """Raise unless ``value`` lies in [0, 1).

    Raises:
        InvalidInput: says what to write.
    """
    if not is_number(value) or not 0 <= value < 1:
        raise InvalidInput(f"{owner}({name}={value!r}): {name} lies in [0, 1). Write {owner}({name}={example}).")


def discount_factor(owner: str, value: float) -> None:
    """Raise unless ``value`` lies in (0, 1].

    Raises:
        InvalidInput: says what to write.
    """
    if not is_number(value) or not 0 < value <= 1:
        raise InvalidInput(f"{owner}(discount={value!r}): discount lies in (0, 1]. Write {owner}(discount=0.99).")


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
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
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


def checked_seed(seed: object) -> int | None:
    """A seed as a plain integer; None stays None.

    Raises:
        InvalidInput: it is no integer from 0 to 2**32 − 1.
    """
    if seed is None:
        return None
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < 2**32:
        raise InvalidInput(f"seed={seed!r}: write an integer from 0 to 2**32 − 1, or None.")
    return number
