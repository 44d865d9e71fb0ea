"""Weak derivatives of Exponential and of a Gamma's rate."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Gamma

from ppgrad.core.distributions import element
from ppgrad.estimators._measure_valued.pair import Pair, exponential


def rate_pairs(fn: TorchDistribution, value: Tensor, coupled: bool) -> list[Pair]:
    """λ: Gamma(a, λ) against Gamma(a + 1, λ), which is the former and Exponential(λ); c = a / λ."""
    base = element(fn)
    rate = base.rate.expand(fn.shape())
    held = rate.detach()
    shape = base.concentration.detach() if isinstance(base, Gamma) else torch.ones_like(held)
    longer = (value if coupled else independent(fn)) + exponential(value) / held
    return [Pair(rate * shape / held, None, longer)]


def independent(fn: TorchDistribution) -> Tensor:
    """Another draw."""
    with torch.no_grad():
        return fn.rsample().detach()


def learned_concentration(fn: TorchDistribution) -> str | None:
    """Why a Gamma is refused whose concentration requires a gradient; None for all else."""
    base = element(fn)
    if isinstance(base, Gamma) and base.concentration.requires_grad:
        return "the concentration of Gamma requires a gradient, and its weak derivative has no closed form"
    return None
