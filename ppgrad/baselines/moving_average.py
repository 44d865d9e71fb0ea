"""An exponential moving average of the signals seen before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ppgrad.core import Baseline, Draw, Memory, Remembers, Signal
from ppgrad.core.arguments import share


@dataclass(frozen=True)
class MovingAverage(Baseline, Remembers):
    """b_t = m_t / (1 − decay^t), with m_t = decay m_{t−1} + (1 − decay) · mean signal at t − 1.

    It uses the average from before this gradient, so that it cannot depend on the draw, and
    divides out the zero that it starts from. The average is over particles and plates. `fit`, SVI
    and ``differentiable_loss`` advance it; measuring never does.

    Args:
        decay: in [0, 1); the share of the old average that stays.

    Source: Mnih & Gregor (2014), Neural variational inference, section 2.3; debiasing as in
    Kingma & Ba (2015), Adam, section 3.
    """

    source: ClassVar[str] = (
        "Mnih & Gregor (2014), Neural Variational Inference and Learning in Belief Networks, section 2.3"
    )

    decay: float = 0.9

    def __post_init__(self) -> None:
        share(type(self).__name__, "decay", self.decay, 0.9)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        if "average" not in memory:
            return torch.zeros_like(signal.value)
        return memory["average"] / (1 - self.decay ** memory["count"])

    def update(self, draw: Draw, signal: Signal, memory: Memory) -> Memory:
        mean = signal.value.mean().detach()
        old = {"average": torch.zeros_like(mean), "count": torch.zeros_like(mean), **memory}
        return {
            **memory,
            "average": self.decay * old["average"] + (1 - self.decay) * mean,
            "count": old["count"] + 1,
        }
