"""The program's own cost where the site takes its likeliest value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Bernoulli

from ppgrad.core import Baseline, Draw, Memory, Signal, SiteInfo
from ppgrad.core.discrete import element
from ppgrad.core.distributions import distribution_name, without_mask


@dataclass(frozen=True)
class SelfCritical(Baseline):
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
            finite = bool(torch.isfinite(_mode(site.fn)).all())
        except NotImplementedError:
            finite = False
        return None if finite else f"SelfCritical() needs a mode, and {distribution_name(site.fn)} has none"

    def references(self, fn: TorchDistribution) -> Tensor:
        return _mode(fn).unsqueeze(0)

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return signal.alternatives[0]


def _mode(fn: TorchDistribution) -> Tensor:
    base = element(fn)
    if isinstance(base, Bernoulli):  # torch's is NaN at p = ½
        return (base.probs >= 0.5).to(base.probs.dtype).expand(fn.shape())
    mode: Tensor = without_mask(fn).mode
    return mode.detach()
