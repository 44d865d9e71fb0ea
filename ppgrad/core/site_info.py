"""What an estimator may know of a site before it serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyro.distributions import TorchDistribution

from ppgrad.core.draw import Plates


@dataclass(frozen=True)
class SiteInfo:
    """What an estimator may know of a site before it serves it.

    Args:
        name: the site.
        fn: its distribution.
        plates: the vectorized plates around it.
        num_particles: how many independent estimates are averaged.
        has_context: whether a learned baseline would find something to look at.
        num_importance: how many importance samples share one bound.
        context: what a baseline may look at, or None.
        weighs_guide: whether the objective has weights p / q of a guide's draws.
        differentiable: whether a gradient may pass through the value; ``infer["differentiable"]`` of the site.
    """

    name: str
    fn: TorchDistribution
    plates: Plates
    num_particles: int
    has_context: bool
    num_importance: int = 1
    context: Any = None
    weighs_guide: bool = False
    differentiable: bool = True
