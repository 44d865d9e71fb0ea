"""What an estimate tells of episodes, policy and critic, under the names that users of reinforcement learning know."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ppgrad.core import Memory
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.running.record import Served
from ppgrad.engine.running.rewards import Rewards
from ppgrad.estimators import InverseVariance, ScoreFunction
from ppgrad.objectives import Estimate, surrogates


class EpisodeRewards(NamedTuple):
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

    @property
    def metrics(self) -> dict[str, float]:
        """The means by the names that a log has for them."""
        reward = {"rollout/ep_rew_mean": self.mean}
        return reward if self.length is None else {**reward, "rollout/ep_len_mean": self.length}


def episode_rewards(rewards: Rewards) -> EpisodeRewards | None:
    """The rewards of the episodes of an estimate, or None for a program without a reward site."""
    if not rewards.episodes:
        return None
    total, active, lengths = torch.stack([sums.to(rewards.undiscounted) for sums in rewards[:3]]).tolist()
    mean = total / rewards.lanes
    if not active:
        return EpisodeRewards(mean, rewards.episodes, rewards.number, None)
    return EpisodeRewards(mean, rewards.episodes, int(active), lengths / rewards.lanes)


@torch.no_grad()
def of_estimate(estimate: Estimate, policies: Collection[str], memory: Mapping[str, Memory]) -> dict[str, float]:
    """Metrics of an estimate that has been learned from; those that do not apply are left out.

    Args:
        estimate: of the step.
        policies: the names of the policy sites.
        memory: what the objective remembered when it made the estimate.
    """
    at_policies = [each for each in estimate.served if each[0].name in policies]
    all_are_scored = {draw.name for draw, _, _ in at_policies} == set(policies)
    return {**(_of_policy(at_policies, memory) if all_are_scored else {}), **_of_critic(estimate.served)}


def alpha(prepared: Prepared, memory: Mapping[str, Memory]) -> float | None:
    """The weight of the pathwise gradient at sites of `InverseVariance`, averaged; None without such a site."""
    served = prepared.executor.setup.assignment.served()
    names = [name for name, estimator in served if isinstance(estimator, InverseVariance)]
    weights = [memory[name]["alpha"] for name in names if "alpha" in memory.get(name, {})]
    return float(torch.stack(weights).mean()) if weights else None


def _of_policy(served: list[Served], memory: Mapping[str, Memory]) -> dict[str, float]:
    if not served:
        return {}
    number = _number(served)
    found = {"train/entropy_loss": _sum([draw.log_prob for draw, _, _ in served]) / number}
    if all(isinstance(estimator, ScoreFunction) for _, _, estimator in served):
        found["train/policy_loss"] = _sum(surrogates(served, memory)) / number
    return found


def _of_critic(served: tuple[Served, ...]) -> dict[str, float]:
    learned = [(draw.active, signal.regressed) for draw, signal, _ in served if signal.regressed is not None]
    if not learned:
        return {}
    targets = torch.cat([_kept(each.target.expand_as(each.error), active) for active, each in learned])
    errors = torch.cat([_kept(each.error, active) for active, each in learned])
    found = {"train/value_loss": float(errors.square().mean())} if len(errors) else {}
    variance = targets.var(correction=0)
    if variance > 0:
        found["train/explained_variance"] = float(1 - errors.var(correction=0) / variance)
    return found


def _kept(tensor: Tensor, active: Tensor | None) -> Tensor:
    """Where something depends on the draw, flat."""
    return tensor.reshape(-1) if active is None else tensor[active.expand_as(tensor)]


def _number(served: list[Served]) -> int:
    """How many draws there are that something depends on."""
    masks = [draw.active for draw, _, _ in served if draw.active is not None]
    counted = int(torch.stack([mask.sum() for mask in masks]).sum()) if masks else 0
    return max(1, counted + sum(draw.log_prob.numel() for draw, _, _ in served if draw.active is None))


def _sum(terms: list[Tensor]) -> float:
    return float(torch.stack([term.sum() for term in terms]).sum())
