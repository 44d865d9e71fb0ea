"""Objectives in which several runs share one number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ppgrad.core import Estimator, Signal
from ppgrad.engine.running.record import Record, Served
from ppgrad.engine.running.sampler import Sizes
from ppgrad.objectives._shared.dice import Memories, joint_dice
from ppgrad.objectives._shared.lanes import lanes_of, total_of_lanes
from ppgrad.objectives._shared.merging import merged
from ppgrad.objectives._shared.options import check_count
from ppgrad.objectives._shared.requirements import check_nothing_is_summed_over
from ppgrad.objectives.objective import Objective


class JointObjective(Objective):
    """J_K = E[v(c_1, …, c_K)], c_k the cost of the k-th of K independent runs.

    Each run acts on all of v, so every draw of run k has the same signal: v, or what of it is not
    the other runs' alone (`credit`). The direct term is Σ_k ∂v/∂c_k ∇c_k. Abstract.

    Args:
        estimator: serves every site that nothing else chooses for; ``ScoreFunction(LeaveOneOut())``
            compares particles, each of K runs.
        num_importance: K.
        options: see `Objective`; ``num_particles`` values of v are averaged, K runs each.

    Raises:
        InvalidInput: ``num_importance`` is no integer from 1 up.
    """

    couples_lanes: ClassVar[bool] = True

    def __init__(self, estimator: Estimator | None = None, *, num_importance: int = 8, **options: Any):
        check_count(type(self), "num_importance", num_importance)
        self.num_importance = num_importance
        super().__init__(estimator, **options)

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.num_particles, self.num_importance, self.weighs_guide)

    @abstractmethod
    def value(self, costs: Tensor) -> Tensor:
        """v of the costs of K runs: ``(…, K)`` to ``(…)``."""

    def credit(self, costs: Tensor) -> Tensor:
        """The cost that the draws of each run are charged with, ``(…, K)`` to ``(…, K)``."""
        return (-self.value(costs)).unsqueeze(-1).expand_as(costs)

    def offset(self, costs: Tensor) -> Tensor:
        """Minus v less the `credit` of each run: what of v is the other runs' alone, ``(…, K)``."""
        return -self.value(costs).unsqueeze(-1) - self.credit(costs)

    def without(self, costs: Tensor) -> Tensor | None:
        """What `credit` is expected to be without the run, from the other runs alone; None where K = 1."""
        return None if costs.shape[-1] < 2 else torch.zeros_like(costs)

    def replaced(self, costs: Tensor, own: Tensor) -> Tensor:
        """Minus v where run k costs something else.

        Args:
            costs: of all runs, ``(particles, K)``.
            own: what run k costs instead, ``(n, particles × K, …)``.
        """
        size = costs.shape[1]
        run = torch.arange(costs.numel(), device=costs.device) % size
        ones = [1] * (own.dim() - 2)
        is_own = (torch.arange(size, device=costs.device) == run.unsqueeze(-1)).reshape(len(run), *ones, size)
        others = costs.repeat_interleave(size, 0).reshape(len(run), *ones, size)
        return -self.value(torch.where(is_own, own.unsqueeze(-1), others))

    def direct(self, records: Sequence[Record], costs: Tensor) -> Tensor:
        """A scalar with the gradient that the costs carry themselves."""
        return -self.value(costs).mean()

    def surrogate_of_any_order(self, records: Sequence[Record], memories: Memories) -> Tensor:
        costs = self.run_costs(records)
        offsets = self.offset(costs.detach()).reshape(-1)
        served = self.combine(records)[2]
        return joint_dice(records, served, -self.value(costs), offsets, memories) / self.num_particles

    def combine(self, records: Sequence[Record]) -> tuple[Tensor, Tensor, tuple[Served, ...]]:
        costs = self.run_costs(records)
        loss = -self.value(costs).mean()
        if not torch.is_grad_enabled():
            return loss, loss, ()
        group = _Group(self, costs.detach())
        served, start = [], 0
        for record in records:
            lanes = slice(start, start := start + lanes_of(record))
            served += [
                (draw, group.signal(draw.log_prob.dim(), signal, lanes), e) for draw, signal, e in record.served()
            ]
        return loss, self.direct(records, costs), merged(served)

    def run_costs(self, records: Sequence[Record]) -> Tensor:
        """The whole cost of each run, shape ``(particles, K)``."""
        for record in records:
            check_nothing_is_summed_over(record, type(self).__name__)
        costs = torch.cat([total_of_lanes(record.costs) for record in records])
        return costs.reshape(self.num_particles, self.num_importance)


class _Group:
    """The numbers that K runs share, as signals of their draws.

    Args:
        objective: whose numbers they are.
        costs: of each run, shape ``(particles, K)``.
    """

    def __init__(self, objective: JointObjective, costs: Tensor):
        self._objective = objective
        self._costs = costs
        credit = objective.credit(costs)
        self._credit = credit.reshape(-1)
        self._offset = objective.offset(costs).reshape(-1)
        means = credit.mean(1, keepdim=True)
        particles = len(costs)
        others = (means.sum() - means) / (particles - 1) if particles > 1 else torch.zeros_like(means)
        self._others = others.expand_as(costs).reshape(-1)
        without = objective.without(costs)
        self._without = None if without is None else without.reshape(-1)

    def signal(self, dim: int, additive: Signal, lanes: slice) -> Signal:
        """The signal of a draw whose log-probability has ``dim`` dimensions."""

        def shaped(values: Tensor) -> Tensor:
            return values[lanes].reshape(-1, *[1] * (dim - 1))

        alternatives = relaxed = base = None
        if additive.has_alternatives:
            alternatives = self._replaced(additive.alternatives - additive.base, lanes)
            ones = [1] * (alternatives.dim() - 2)  # those of the event, too, where its elements took turns
            alternatives = alternatives - self._offset[lanes].reshape(-1, *ones)
            base = self._credit[lanes].reshape(-1, *ones)
            if additive.has_relaxed:
                change = additive.relaxed - additive.base.reshape(additive.relaxed.shape[1:])
                relaxed = self._replaced(change, lanes)
        return Signal(
            {frozenset(): shaped(self._credit)},
            frozenset(),
            alternatives,
            base,
            relaxed,
            additive.gradients if additive.has_gradients else None,
            shaped(self._others),
            None if self._without is None else shaped(self._without),
        )

    def _replaced(self, change: Tensor, lanes: slice) -> Tensor:
        """The joint cost if the cost of one run changed by ``change``, shape ``(n, lanes, …)``."""
        everywhere = change.new_zeros(len(change), self._costs.numel(), *change.shape[2:])
        own = self._costs.reshape(-1, *[1] * (change.dim() - 2))
        if change.shape[1] == self._costs.numel():
            return self._objective.replaced(self._costs, own + change)
        index = torch.arange(self._costs.numel(), device=change.device)[lanes]
        return self._objective.replaced(self._costs, own + everywhere.index_add(1, index, change))[:, lanes]
