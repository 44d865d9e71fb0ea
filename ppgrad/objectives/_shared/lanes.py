"""The costs of runs, lane by lane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ppgrad.core import sum_lane
from ppgrad.engine.running.record import Record


def total_of_lanes(costs: Sequence[Tensor]) -> Tensor:
    """The sum of the costs of each lane, shape ``(lanes,)``."""
    return torch.stack([sum_lane(cost) for cost in costs]).sum(0).reshape(-1)


def lanes_of(record: Record) -> int:
    """How many lanes a record holds."""
    return len(total_of_lanes(record.costs))


def others_of_each(costs: Tensor) -> Tensor:
    """For each of K runs the costs of the others, ``(…, K)`` to ``(…, K, K − 1)``."""
    size = costs.shape[-1]
    first = torch.arange(size, device=costs.device)
    index = (first.unsqueeze(-1) + first[1:]) % size
    return costs[..., index]
