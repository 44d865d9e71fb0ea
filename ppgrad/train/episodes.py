"""What an estimate's executions earned."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ppgrad.engine.running.rewards import Rewards


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


def earned(rewards: Rewards) -> Earned | None:
    """What the episodes of an estimate earned, or None for a program without a reward site."""
    if not rewards.episodes:
        return None
    total, active, lengths = torch.stack([sums.to(rewards.earned) for sums in rewards[:3]]).tolist()
    mean = total / rewards.lanes
    if not active:
        return Earned(mean, rewards.episodes, rewards.number, None)
    return Earned(mean, rewards.episodes, int(active), lengths / rewards.lanes)
