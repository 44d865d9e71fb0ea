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
        steps: how many were taken, over all episodes: draws that are active, where the program says which are
            (``infer={"active": …}``, as `rollout` does), else rewards.
        length: draws of an episode that are active, averaged; None where the program does not say.
    """

    mean: float
    episodes: int
    steps: int
    length: float | None


def earned(records: Sequence[Record], lanes: int) -> Earned | None:
    """What ``records`` of ``lanes`` runs earned, or None for a program without a reward site."""
    total, episodes, rewards = torch.zeros(()), 0, 0
    active, length = torch.zeros(()), torch.zeros(())
    for record in records:
        sites = [(entry.plates, entry.reward) for entry in record.entries if entry.reward is not None]
        if not sites:
            continue
        shared = frozenset.intersection(*(plates for plates, _ in sites))
        slices = math.prod(plate.size for plate in shared)
        episodes = max(episodes, lanes * slices)
        total = total + torch.stack([reward.sum() for _, reward in sites]).sum() / slices
        rewards += sum(reward.numel() for _, reward in sites)
        masks = [entry.active for entry in record.entries if entry.active is not None]
        if masks and not any(entry.is_summed_over for entry in record.entries):
            taken = torch.stack([mask.sum() for mask in masks]).sum()
            active, length = active + taken, length + taken / slices
    if not episodes:
        return None
    if not active:
        return Earned(float(total) / lanes, episodes, rewards, None)
    return Earned(float(total) / lanes, episodes, int(active), float(length) / lanes)
