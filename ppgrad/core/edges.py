"""Where a draw or a probability lies at the edge of what floating-point numbers tell apart."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Beta, Binomial, Dirichlet, Gamma

from ppgrad.core.distributions import distribution_name, element, given_probabilities, leaves

MOST_CLAMPED = 1e-3
"""The largest share of draws that may be cut off at an edge before their density is said to be wrong there."""


def cut_off(fn: TorchDistribution) -> str | None:
    """Why the log density of draws of ``fn`` is off in the mean, with the parameter to change; None if it is not.

    torch returns the least positive number for smaller draws of a Gamma, Beta or Dirichlet, and the largest number
    below 1 for larger ones of a Beta. The log density, which still changes there, is then that of another value.
    """
    share, parameter, value = max(_shares(fn), default=(0.0, "", 0.0))
    if share <= MOST_CLAMPED:
        return None
    return (
        f"{share:.2g} of the draws of {distribution_name(fn)} lie closer to the edge of its support than "
        f"floating-point numbers do, since its {parameter} is {value:.2g}, and their density is that of the edge"
    )


def _shares(fn: TorchDistribution) -> Iterator[tuple[float, str, float]]:
    """For each edge the largest share of draws beyond it, and the parameter that it comes from, with its value."""
    base = element(fn)
    while hasattr(base, "base_dist"):
        base = base.base_dist
    if isinstance(base, Gamma):
        yield _share("concentration", base.concentration, None, torch.finfo(base.concentration.dtype).tiny)
    elif isinstance(base, Beta):
        first, second = base.concentration1, base.concentration0
        yield _share("concentration1", first, second, torch.finfo(first.dtype).tiny)
        yield _share("concentration0", second, first, torch.finfo(second.dtype).eps / 2)
    elif isinstance(base, Dirichlet):
        each = base.concentration
        yield _share("concentration", each, each.sum(-1, keepdim=True) - each, torch.finfo(each.dtype).tiny)


def _share(name: str, a: Tensor, b: Tensor | None, edge: float) -> tuple[float, str, float]:
    """P(x < edge) = edgeᵃ / (a B(a, b)), or edgeᵃ / Γ(a + 1) of a Gamma: what leads for a small edge.

    Source: Abramowitz & Stegun (1964), eq. 6.5.29 and 26.5.4.
    """
    with torch.no_grad():
        logarithm = a * math.log(edge) - torch.lgamma(a + 1)
        if b is not None:
            logarithm = logarithm + torch.lgamma(a + b) - torch.lgamma(b)
        share, place = logarithm.exp().reshape(-1).max(0)
        return float(share), name, float(a.reshape(-1)[place])


def moving_edge(fn: TorchDistribution) -> float | None:
    """A probability of a discrete ``fn`` that is exactly 0 or 1, and that something that requires a gradient moves.

    None where there is none, as where a mask or a saturated sigmoid holds it there: then it has no gradient.
    """
    probs = given_probabilities(fn)
    if probs is None or not probs.requires_grad:
        return None
    at_edge = probs.detach() == 0
    if isinstance(element(fn), Bernoulli | Binomial):
        at_edge |= probs.detach() == 1
    found = probs[at_edge]
    origins = leaves(found)
    if not found.numel() or not origins:
        return None
    weights = torch.linspace(1.0, math.e, found.numel(), dtype=probs.dtype, device=probs.device)  # nothing cancels
    gradients = torch.autograd.grad((weights * found).sum(), origins, allow_unused=True, retain_graph=True)
    moves = any(g is not None and bool((g != 0).any()) for g in gradients)
    return float(found[0].detach()) if moves else None
