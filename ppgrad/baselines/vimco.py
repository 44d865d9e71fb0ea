"""VIMCO: a leave-one-out baseline inside of an importance-weighted bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from ppgrad.core import Baseline, Draw, Memory, Signal, SiteInfo


@dataclass(frozen=True)
class VIMCO(Baseline):
    """b_k = −log (1/K) (Σ_{j≠k} w_j + exp (1/(K−1)) Σ_{j≠k} log w_j): the bound without sample k.

    Its own weight is replaced by the geometric mean of the others. Needs ``IWELBO`` with two
    importance samples or more.

    Source: Mnih & Rezende (2016), Variational inference for Monte Carlo objectives, eq. 10.
    """

    source: ClassVar[str] = "Mnih & Rezende (2016), Variational Inference for Monte Carlo Objectives, eq. 10"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        if site.num_importance >= 2:
            return None
        return "VIMCO() compares importance samples; write IWELBO(…, num_importance=2) or more, or LeaveOneOut()"

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        if signal.without is None:
            raise TypeError("VIMCO needs the signal of an importance-weighted bound")
        return signal.without
