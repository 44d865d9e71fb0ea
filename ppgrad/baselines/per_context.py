"""A moving average for each value of a discrete context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ppgrad.core import Baseline, Draw, Memory, Remembers, Signal, SiteInfo
from ppgrad.core.arguments import at_least, share


@dataclass(frozen=True)
class PerContext(Baseline, Remembers):
    """b = the moving average of the signals seen before at the same context, an index from 0 to ``contexts`` − 1.

    An input-dependent baseline, as a table: one entry for each data point, prompt or start state. As
    `MovingAverage` it uses the averages from before this gradient, without the zero they start from.

    Args:
        contexts: how many there are.
        decay: in [0, 1); the share of the old average that stays when its context is met again.

    Source: Mao et al. (2019), Variance reduction for reinforcement learning in input-driven environments,
    theorem 1.
    """

    source: ClassVar[str] = "Mao et al. (2019), Variance Reduction in Input-Driven Environments, theorem 1"

    contexts: int
    decay: float = 0.9

    def __post_init__(self) -> None:
        at_least(type(self).__name__, "contexts", self.contexts, 1)
        share(type(self).__name__, "decay", self.decay, 0.9)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(4),)

    def refuses(self, site: SiteInfo) -> str | None:
        index = site.context
        if not isinstance(index, Tensor) or index.is_floating_point() or index.dtype == torch.bool:
            return "PerContext reads an integer context; write ppgrad.policy(…, context=index)"
        if index.dim() > len(site.fn.batch_shape):
            return f"PerContext needs one index for each element, and the context has shape {tuple(index.shape)}"
        if not bool(((index >= 0) & (index < self.contexts)).all()):
            return f"the context lies outside of 0 … {self.contexts - 1}; write PerContext({int(index.max()) + 1})"
        return None

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        index = self._index(draw, signal)
        if "average" not in memory:
            return torch.zeros_like(signal.value)
        return (memory["average"] / memory["weight"].clamp(min=1e-12))[index].to(signal.value.dtype)

    def update(self, draw: Draw, signal: Signal, memory: Memory) -> Memory:
        index = self._index(draw, signal).reshape(-1)
        values = signal.value.detach().reshape(-1)
        zero = torch.zeros(self.contexts, dtype=values.dtype, device=values.device)
        count = zero.index_add(0, index, torch.ones_like(values))
        mean = zero.index_add(0, index, values) / count.clamp(min=1)
        keep = torch.where(count > 0, self.decay, 1.0)
        old = {"average": zero, "weight": zero, **memory}
        return {
            **memory,
            "average": keep * old["average"] + (1 - keep) * mean,
            "weight": keep * old["weight"] + (1 - keep),
        }

    def _index(self, draw: Draw, signal: Signal) -> Tensor:
        context: Tensor = draw.context
        missing = signal.value.dim() - context.dim()
        return context.reshape(*context.shape[:2], *[1] * missing, *context.shape[2:]).expand_as(signal.value)
