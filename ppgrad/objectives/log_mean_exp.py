"""Objectives that are the logarithm of a mean of exponentials over runs."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from ppgrad.objectives._shared.doubly_reparameterized import doubly_reparameterized
from ppgrad.objectives._shared.lanes import RunsOfPart, others_of_each
from ppgrad.objectives.joint import JointObjective, is_run


class LogMeanExp(JointObjective):
    """J_K = E[(1/s) log (1/K) Σ_k exp(s g_k)], g_k the gain (minus the cost) of the k-th of K runs.

    The signal of every draw of every run is the whole of J_K, since each g_k acts on all of it; the
    direct term is Σ_k w̃_k ∇g_k with w̃ the normalized weights. Abstract.

    Args:
        estimator: serves every site that nothing else chooses for. ``ScoreFunction(VIMCO())`` compares
            the K runs; ``ScoreFunction(LeaveOneOut())`` compares particles, each of K runs.
        num_importance: K.
        options: see `Objective`; ``num_particles`` values of J_K are averaged, K runs each.
    """

    @property
    @abstractmethod
    def sharpness(self) -> float:
        """The s of the formula, not zero."""

    def value(self, costs: Tensor) -> Tensor:
        return -self._cost((-self.sharpness * costs).logsumexp(-1), costs.shape[-1])

    def without(self, costs: Tensor) -> Tensor | None:
        """VIMCO's stand-in for a run's weight: the geometric mean of the others'."""
        if costs.shape[-1] < 2:
            return None
        others = -self.sharpness * others_of_each(costs)
        return self._cost(torch.logaddexp(others.logsumexp(-1), others.mean(-1)), costs.shape[-1])

    def replaced(self, costs: Tensor, own: Tensor, run: Tensor) -> Tensor:
        size = costs.shape[-1]
        if size == 1:
            return own
        others = (-self.sharpness * costs).masked_fill(is_run(run, costs), -math.inf)
        return self._cost(torch.logaddexp(others.logsumexp(-1), -self.sharpness * own), size)

    def direct(self, part: RunsOfPart, costs: Tensor) -> Tensor:
        if not any(entry.stopped is not None for record in part.records for entry in record.entries):
            return super().direct(part, costs)
        weights = (-self.sharpness * costs.detach()).softmax(-1)
        return doubly_reparameterized(part, weights, self.sharpness)

    def _cost(self, log_sum: Tensor, size: int) -> Tensor:
        return (math.log(size) - log_sum) / self.sharpness
