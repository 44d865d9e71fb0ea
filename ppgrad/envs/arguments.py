"""Checks of what an environment is built with; each error names the argument and the mend."""

from __future__ import annotations

from typing import Any

from ppgrad.core import InvalidInput
from ppgrad.core.arguments import is_number


def positive(where: str, name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number above 0."""
    if not is_number(value) or value <= 0:
        raise InvalidInput(f"{where}({name}={value!r}): write a positive, finite number.")


def not_negative(where: str, name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number, zero or more."""
    if not is_number(value) or value < 0:
        raise InvalidInput(f"{where}({name}={value!r}): write a finite number, zero or more.")


def finite(where: str, name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number."""
    if not is_number(value):
        raise InvalidInput(f"{where}({name}={value!r}): write a finite number.")


def matrix(where: str, name: str, value: Any) -> tuple[int, int]:
    """The shape of ``value``, which is a matrix of finite numbers as nested tuples."""
    rows = value if isinstance(value, tuple | list) else ()
    widths = {len(row) if isinstance(row, tuple | list) else 0 for row in rows}
    if len(widths) != 1 or 0 in widths or not all(is_number(number) for row in rows for number in row):
        raise InvalidInput(
            f"{where}({name}={value!r}): write rows of finite numbers, such as ((1.0, 0.1), (0.0, 1.0))."
        )
    return len(rows), widths.pop()
