"""The constant that leaves the least variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ppgrad.core import Baseline, Calibrates, Draw, Memory, Pilot, Signal


@dataclass(frozen=True)
class OptimalConstant(Baseline, Calibrates):
    """b* = E[f ‖s‖²] / E[‖s‖²], s = ∇log p: the constant of least variance, from held-out runs.

    A constant that is fitted to the draws that it is subtracted from is biased; these are others.
    It is kept from one gradient to the next; training renews it. Where further sites add to the
    gradient, it is Cov(g, s) / Var(s), g the whole gradient, which also counts what they share.

    Source: Greensmith, Bartlett & Baxter (2004), Variance reduction techniques for gradient estimates in
    reinforcement learning, theorem 8.
    """

    source: ClassVar[str] = "Greensmith, Bartlett & Baxter (2004), Variance Reduction Techniques, theorem 8"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    @property
    def gates(self) -> Mapping[str, float]:
        return {"constant": 0.0}

    def calibrate(self, pilot: Pilot) -> Memory:
        score = -pilot.effects["constant"]
        centred = score - score.mean(1, keepdim=True)
        variance = centred.square().sum()
        constant = (centred * pilot.total).sum() / variance
        return {"constant": torch.where(variance > 0, constant, 0.0)}

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return torch.zeros_like(signal.value) + memory.get("constant", 0.0)
