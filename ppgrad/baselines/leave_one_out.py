"""The mean signal of the other samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ppgrad.core import Baseline, Draw, Memory, Needs, Signal, SiteInfo


@dataclass(frozen=True)
class LeaveOneOut(Baseline):
    """b_i = Σ_{j≠i} f_j / (n − 1) over the particles, or over the elements of a plate.

    Over a plate only the part of the cost that lies inside it has a baseline: a cost that the
    elements share depends on every one of them.

    Args:
        over: the name of a plate whose elements are independent samples; None for particles.

    Source: Kool, van Hoof & Welling (2019), Buy 4 REINFORCE samples, get a baseline for free, eq. 8.
    """

    source: ClassVar[str] = "Kool, van Hoof & Welling (2019), Buy 4 REINFORCE Samples, eq. 8"

    over: str | None = None

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        if self.over is None:
            if site.num_particles >= 2:
                return None
            plates = [plate.name for plate in site.plates if plate.size >= 2]
            instead = f"or LeaveOneOut(over={plates[0]!r})" if plates else "or MovingAverage()"
            return f"LeaveOneOut() needs two particles or more; write num_particles=2 {instead}"
        sizes = {plate.name: plate.size for plate in site.plates}
        if self.over not in sizes:
            there = f"the plates around it: {', '.join(sorted(sizes))}" if sizes else "it lies in no plate"
            return f"LeaveOneOut(over={self.over!r}) names no plate of the site; {there}"
        if sizes[self.over] < 2:
            return f"LeaveOneOut(over={self.over!r}) needs a plate of two elements or more"
        return None

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return Needs(joins_steps=type(self) is LeaveOneOut, independent_particles=self.over is None)

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        if self.over is None and signal.others is not None:
            return signal.others
        if self.over is None:
            dim, values = 0, signal.value
        else:
            dim = next(plate.dim for plate in draw.plates if plate.name == self.over)
            values = signal.within(self.over)
        others = values.shape[dim] - 1
        if others == 0:
            return torch.zeros_like(values)
        return (values.sum(dim, keepdim=True) - values) / others
