"""What an estimate's executions earned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ppgrad.engine.entries import Record


class Earned(NamedTuple):
    """The rewards of the episodes of one estimate.

    Args:
        mean: undiscounted reward of an episode, averaged.
        episodes: how many: particles × elements of the plates that all reward sites share.
        rewards: how many were earned, over all episodes.
    """

    mean: float
    episodes: int
    rewards: int


def earned(records: Sequence[Record], lanes: int) -> Earned | None:
    """What ``records`` of ``lanes`` runs earned, or None for a program without a reward site."""
    total, episodes, rewards = torch.zeros(()), 0, 0
    for record in records:
        sites = [(entry.plates, entry.reward) for entry in record.entries if entry.reward is not None]
        if not sites:
            continue
        shared = frozenset.intersection(*(plates for plates, _ in sites))
        slices = math.prod(plate.size for plate in shared)
        episodes = max(episodes, lanes * slices)
        total = total + torch.stack([reward.sum() for _, reward in sites]).sum() / slices
        rewards += sum(reward.numel() for _, reward in sites)
    return Earned(float(total) / lanes, episodes, rewards) if episodes else None
