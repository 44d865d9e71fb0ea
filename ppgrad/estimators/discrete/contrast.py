"""What estimators share whose estimate is linear in the costs of alternatives."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ppgrad.core.draw import Draw, Signal


def with_weights(weights: Iterable[Tensor]) -> dict[str, Tensor]:
    """Extras that hold one weight for each alternative, each of the shape of the site's elements."""
    return {"weights": torch.stack([*weights], -1)}


def contrast(draw: Draw, signal: Signal) -> Tensor | None:
    """Σ_j w_j (f_j − f_x): alternative j against the value drawn, summed over the elements of an event.

    The weights carry the graph to the parameters, their gradients are those of the estimate. The
    cost of the value drawn adds nothing to the mean as long as the gradients of the weights of a
    site sum to minus that of the value drawn.

    Returns:
        A term of shape lanes + plates, or None for a site without alternatives.
    """
    if not signal.has_alternatives:
        return None
    weights = draw.extras["weights"]
    total = torch.zeros(())
    for weight, cost in zip(weights.unbind(-1), signal.alternatives, strict=True):
        total = total + weight * per_element(cost - signal.base, weight, draw.event_dim)
    return total.sum([*range(-draw.event_dim, 0)]) if draw.event_dim else total


def per_element(cost: Tensor, like: Tensor, event_dim: int) -> Tensor:
    """A cost by elements of an event, one number where the element is a vector.

    Args:
        cost: lanes + plates, followed by the event's shape where elements took turns, or by nothing.
        like: lanes + plates + event, with ones for the dimensions that one element fills.
        event_dim: how many dimensions the event has.
    """
    if cost.dim() < like.dim():
        return cost.reshape(*cost.shape, *[1] * event_dim)
    for dim in range(-event_dim, 0):
        if like.shape[dim] == 1:
            cost = cost.narrow(dim, 0, 1)
    return cost
