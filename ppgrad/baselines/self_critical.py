"""The program's own cost where the site takes its likeliest value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Baseline, Draw, Memory, RunsAgain, Signal, SiteInfo
from ppgrad.core.distributions import distribution_name, mode


@dataclass(frozen=True)
class SelfCritical(Baseline, RunsAgain):
    """b = f(mode): one branch, the program with the site at its mode and the same noise elsewhere.

    Needs a distribution with a mode.

    Source: Rennie et al. (2017), Self-critical sequence training for image captioning, eq. 9.
    """

    source: ClassVar[str] = "Rennie et al. (2017), Self-Critical Sequence Training for Image Captioning, eq. 9"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        try:
            finite = bool(torch.isfinite(mode(site.fn)).all())
        except NotImplementedError:
            finite = False
        return None if finite else f"SelfCritical() needs a mode, and {distribution_name(site.fn)} has none"

    def references(self, fn: TorchDistribution) -> Tensor:
        return mode(fn).unsqueeze(0)

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return signal.alternatives[0]
