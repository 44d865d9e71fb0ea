"""The costs of runs, lane by lane, and slice by slice where slices have numbers of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppgrad.core import Plates, sum_lane
from ppgrad.engine.running.record import Entry, Record


@dataclass(frozen=True)
class RunsOfPart:
    """A part of a program that shares no draw with the rest, in all runs: what of it is one number for each run.

    Args:
        records: of all runs.
        sites: the part, bit i for the i-th site; all of them where there are several records.
        plates: whose slices have numbers of their own.
        shape: (particles, K).
    """

    records: Sequence[Record]
    sites: int
    plates: Plates
    shape: tuple[int, int]

    @property
    def scale(self) -> float:
        """By how much the slices stand for more than there are: outside of what is no sum, as inside it is no bound."""
        subsampling = self.records[0].subsampling
        return math.prod(subsampling.get(plate.name, 1.0) for plate in self.plates)

    def holds(self, place: int) -> bool:
        return bool(self.sites >> place & 1)

    def entries(self, record: Record) -> list[Entry]:
        """Those of a record that belong to the part."""
        return [entry for place, entry in enumerate(record.entries) if self.holds(place)]

    def total(self, terms: Sequence[Sequence[Tensor]]) -> Tensor:
        """The sum of each record's terms for each run and each slice, ``(particles, *slices, K)``; unscaled."""
        if not self.plates:
            return torch.cat([total_of_lanes(own) for own in terms]).reshape(self.shape)
        (own,) = terms
        apart = {plate.dim for plate in self.plates}
        by_slice = [_summed(term, [dim for dim in range(2 - term.dim(), 0) if dim not in apart]) for term in own]
        every = sum(by_slice[1:], by_slice[0]) / self.scale
        return every.reshape(*self.shape, *every.shape[2:]).movedim(1, -1)


def _summed(term: Tensor, dims: list[int]) -> Tensor:
    return term.sum(dims, keepdim=True) if dims else term


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
