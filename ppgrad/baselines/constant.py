"""A constant baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ppgrad.core import Baseline, Draw, InvalidInput, Memory, Needs, Signal
from ppgrad.core.arguments import is_number


@dataclass(frozen=True)
class Constant(Baseline):
    """b = −``value``: ``value`` is the return (or the bound) that is expected.

    Args:
        value: a finite number.

    Raises:
        InvalidInput: ``value`` is no finite number.

    Source: Williams (1992), Simple statistical gradient-following algorithms, section 4.
    """

    source: ClassVar[str] = "Williams (1992), Simple statistical gradient-following algorithms, section 4"

    value: float

    def __post_init__(self) -> None:
        if not is_number(self.value):
            raise InvalidInput(f"Constant({self.value!r}): the value is a finite number. Write Constant(1.0).")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(1.5),)

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return Needs(joins_steps=type(self) is Constant)

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return torch.full_like(signal.value, -self.value)
