"""What estimators and baselines have in common: they are frozen dataclasses, printed as one writes them."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from torch import Tensor


class Member:
    """A frozen dataclass that prints as one would write it: without the fields that are at their defaults."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__repr__ = _written  # type: ignore[method-assign]


def _written(member: Any) -> str:
    shown = []
    for entry in fields(member):
        value = getattr(member, entry.name)
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if entry.repr and (isinstance(value, Tensor) or value != default):
            shown.append(f"{entry.name}={value!r}")
    return f"{type(member).__name__}({', '.join(shown)})"
