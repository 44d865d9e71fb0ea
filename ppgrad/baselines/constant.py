"""A constant baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ppgrad.core import Baseline, Draw, Memory, Signal


@dataclass(frozen=True)
class Constant(Baseline):
    """b = −``value``: ``value`` is the return (or the bound) that is expected.

    Source: Williams (1992), Simple statistical gradient-following algorithms, section 4.
    """

    source: ClassVar[str] = "Williams (1992), Simple statistical gradient-following algorithms, section 4"

    value: float

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(1.5),)

    @property
    def joins_steps(self) -> bool:
        return type(self) is Constant

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return torch.full_like(signal.value, -self.value)
