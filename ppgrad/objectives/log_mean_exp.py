"""Objectives that are the logarithm of a mean of exponentials over samples."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ppgrad.core import Estimator, InvalidInput, Signal, Unsupported, sum_lane
from ppgrad.engine.entries import Record, Served
from ppgrad.engine.record import Sizes
from ppgrad.objectives.objective import Objective, merged


class LogMeanExp(Objective):
    """J_K = E[(1/s) log (1/K) Σ_k exp(s g_k)], g_k the gain (minus the cost) of the k-th of K runs.

    The signal of every draw of every run is the whole of J_K, since each g_k acts on all of it; the
    direct term is Σ_k w̃_k ∇g_k with w̃ the normalised weights. Abstract.

    Args:
        estimator: serves every site that nothing else chooses for. ``ScoreFunction(VIMCO())`` compares
            the K runs; ``ScoreFunction(LeaveOneOut())`` compares particles, each of K runs.
        num_importance: K.
        options: see `Objective`; ``num_particles`` values of J_K are averaged, K runs each.
    """

    couples_lanes: ClassVar[bool] = True

    def __init__(self, estimator: Estimator | None = None, *, num_importance: int = 8, **options: Any):
        if isinstance(num_importance, bool) or not isinstance(num_importance, int) or num_importance < 1:
            name = type(self).__name__
            raise InvalidInput(f"{name}(num_importance={num_importance!r}): num_importance is an integer from 1 up.")
        self.num_importance = num_importance
        super().__init__(estimator, **options)

    @property
    @abstractmethod
    def sharpness(self) -> float:
        """The s of the formula, not zero."""

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.num_particles, self.num_importance)

    def combine(self, records: Sequence[Record]) -> tuple[Tensor, Tensor, tuple[Served, ...]]:
        for record in records:
            _check_nothing_is_summed_over(record, type(self).__name__)
        costs = torch.cat([_lane_costs(record) for record in records])
        log_weights = -self.sharpness * costs.reshape(self.num_particles, self.num_importance)
        values = (log_weights.logsumexp(1) - math.log(self.num_importance)) / self.sharpness
        loss = -values.mean()
        if not torch.is_grad_enabled():
            return loss, loss, ()
        group = _Group(log_weights.detach(), self.sharpness)
        served, start = [], 0
        for record in records:
            lanes = slice(start, start := start + len(_lane_costs(record)))
            served += [
                (draw, group.signal(draw.log_prob.dim(), signal, lanes), e) for draw, signal, e in record.served()
            ]
        return loss, loss, merged(served)


class _Group:
    """The costs that K samples share.

    Args:
        log_weights: s g_k, shape ``(particles, K)``.
        sharpness: s.
    """

    def __init__(self, log_weights: Tensor, sharpness: float):
        self._log_weights = log_weights
        self._sharpness = sharpness
        self._size = log_weights.shape[1]
        shared = self._cost(log_weights.logsumexp(1, keepdim=True))
        particles = len(log_weights)
        self._shared = shared.expand_as(log_weights).reshape(-1)
        others = (shared.sum() - shared) / (particles - 1) if particles > 1 else torch.zeros_like(shared)
        self._others = others.expand_as(log_weights).reshape(-1)
        self._rest = self._log_sum_of_others()
        self._without = self._expected_without()

    def signal(self, dim: int, additive: Signal, lanes: slice) -> Signal:
        """The signal of a draw whose log-probability has ``dim`` dimensions."""

        def shaped(values: Tensor) -> Tensor:
            return values[lanes].reshape(-1, *[1] * (dim - 1))

        alternatives = relaxed = base = None
        if additive.has_alternatives:
            base = shaped(self._shared)
            alternatives = self._replaced(additive.alternatives - additive.base, lanes)
            if additive.has_relaxed:
                change = additive.relaxed - additive.base.reshape(additive.relaxed.shape[1:])
                relaxed = self._replaced(change, lanes)
        return Signal(
            {frozenset(): shaped(self._shared)},
            frozenset(),
            alternatives,
            base,
            relaxed,
            additive.gradients if additive.has_gradients else None,
            shaped(self._others),
            None if self._without is None else shaped(self._without),
        )

    def _cost(self, log_sum: Tensor) -> Tensor:
        return (math.log(self._size) - log_sum) / self._sharpness

    def _log_sum_of_others(self) -> Tensor:
        """log Σ_{j≠k} w_j, shape ``(particles × K,)``."""
        masked = self._log_weights.unsqueeze(1).masked_fill(torch.eye(self._size, dtype=torch.bool), -math.inf)
        return masked.logsumexp(2).reshape(-1)

    def _expected_without(self) -> Tensor | None:
        """VIMCO's stand-in for a sample: the geometric mean of the others."""
        if self._size < 2:
            return None
        weights = self._log_weights
        mean = (weights.sum(1, keepdim=True) - weights) / (self._size - 1)
        return self._cost(torch.logaddexp(self._rest, mean.reshape(-1)))

    def _replaced(self, change: Tensor, lanes: slice) -> Tensor:
        """The shared cost if the cost of one sample changed by ``change``, shape ``(n, lanes, …)``."""
        ones = [1] * (change.dim() - 2)
        own = self._log_weights.reshape(-1)[lanes].reshape(-1, *ones)
        return self._cost(torch.logaddexp(self._rest[lanes].reshape(-1, *ones), own - self._sharpness * change))


def _lane_costs(record: Record) -> Tensor:
    """The whole cost of each lane, shape ``(lanes,)``."""
    return torch.stack([sum_lane(cost) for cost in record.costs]).sum(0).reshape(-1)


def _check_nothing_is_summed_over(record: Record, objective: str) -> None:
    for entry in record.entries:
        if entry.is_summed_over:
            raise Unsupported(
                f"{type(entry.estimator).__name__} cannot serve site '{entry.name}': {objective} is no sum over the "
                f"values of a site.\nChoose ScoreFunction(VIMCO()), LocalExpectation() or DisARM() for it: "
                f"sites={{'{entry.name}': ScoreFunction(VIMCO())}}."
            )
