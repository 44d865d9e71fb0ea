"""The rewards of an estimate's executions, added up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ppgrad.core.draw import total
from ppgrad.engine.running.record import Record


class Rewards(NamedTuple):
    """Sums over all episodes; an episode is an element of the plates that all reward sites share, in one lane.

    Args:
        undiscounted: undiscounted rewards, over the elements of an episode's plates averaged.
        active: draws that something depends on, where the program says which are.
        lengths: the same, over the elements of an episode's plates averaged.
        lanes: how many there are.
        episodes: how many, in all lanes.
        number: of the rewards.
    """

    undiscounted: Tensor
    active: Tensor
    lengths: Tensor
    lanes: int
    episodes: int
    number: int


def rewards_of(records: Sequence[Record], lanes: int) -> Rewards:
    """What ``records`` of ``lanes`` runs earned."""
    undiscounted, active, lengths = torch.zeros(3).unbind()
    episodes, number = 0, 0
    for record in records:
        sites = [(entry.plates, entry.reward) for entry in record.entries if entry.reward is not None]
        if not sites:
            continue
        shared = frozenset.intersection(*(plates for plates, _ in sites))
        slices = math.prod(plate.size for plate in shared)
        episodes = max(episodes, lanes * slices)
        undiscounted = undiscounted + total([reward for _, reward in sites]) / slices
        number += sum(reward.numel() for _, reward in sites)
        masks = [entry.active for entry in record.entries if entry.active is not None]
        if masks and not any(entry.is_summed_over for entry in record.entries):
            taken = total([mask.long() for mask in masks])
            active, lengths = active + taken, lengths + taken / slices
    return Rewards(undiscounted, active, lengths, lanes, episodes, number)
