"""Objectives in which several runs share one number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ppgrad.core import Estimator, InvalidInput, Plate, Signal, Unsupported
from ppgrad.engine.running.record import Record, Served
from ppgrad.engine.running.sampler import Sizes
from ppgrad.objectives._shared.dice import Memories, joint_dice
from ppgrad.objectives._shared.elements import SignalsOfElements, costs_of_elements, plate_called
from ppgrad.objectives._shared.lanes import RunsOfPart, lanes_of
from ppgrad.objectives._shared.merging import merged
from ppgrad.objectives._shared.options import check_count, check_plate_name
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
        over: the name of a plate of n elements, such as the episodes of a rollout: each of them is a run, K × n in
            all, with a cost of its own. None where a run is all that the program does.
        options: see `Objective`; ``num_particles`` values of v are averaged, K runs each.

    Raises:
        InvalidInput: ``num_importance`` is no integer from 1 up, or ``over`` is no name.
        InvalidAssignment: when run: ``over`` names no plate.
        InvalidProgram: when run, with ``over``: something costs outside of the plate.
        Unsupported: when run, with ``over``: an estimator runs the program again, or compares the elements.
    """

    couples_lanes: ClassVar[bool] = True

    shares_data: ClassVar[bool] = False
    """Whether the K runs are samples of one posterior, so that they take the same elements of subsampled plates."""

    takes_elements: ClassVar[bool] = False
    """Whether ``over`` makes sense: elements of a plate are further runs, as of returns, and not other data."""

    def __init__(
        self, estimator: Estimator | None = None, *, num_importance: int = 8, over: str | None = None, **options: Any
    ):
        check_count(type(self), "num_importance", num_importance)
        check_plate_name(type(self), over)
        if over is not None and not self.takes_elements:
            raise InvalidInput(f"{type(self).__name__}(over={over!r}): there is no such option. over= is for returns.")
        self.num_importance = num_importance
        self.over = over
        super().__init__(estimator, **options)

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.num_particles, self.num_importance, self.weighs_guide, self.shares_data)

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

    def replaced(self, costs: Tensor, own: Tensor, run: Tensor) -> Tensor:
        """Minus v where one of K runs costs something else.

        Args:
            costs: of all runs, ``(lanes, …, K)``.
            own: what that run costs instead, ``(n, lanes, …)``.
            run: which one it is, ``(lanes,)``.
        """
        return -self.value(torch.where(is_run(run, costs), own.unsqueeze(-1), costs))

    def direct(self, part: RunsOfPart, costs: Tensor) -> Tensor:
        """A scalar with the gradient that the costs of a part carry themselves."""
        return -part.scale * self.value(costs).sum() / self.num_particles

    def surrogate_of_any_order(self, records: Sequence[Record], memories: Memories) -> Tensor:
        if self.over is not None:
            raise Unsupported(f"{type(self).__name__}(over={self.over!r}) has no second derivative here.")
        part, *more = self.parts(records)
        if more:
            raise Unsupported(
                f"{type(self).__name__} with a weight for each slice has no second derivative here. Write per='joint'."
            )
        costs = self._costs(part)
        offsets = self.offset(costs.detach()).reshape(-1)
        served = self.combine(records)[2]
        return joint_dice(records, served, -self.value(costs), offsets, memories) / self.num_particles

    def combine(self, records: Sequence[Record]) -> tuple[Tensor, Tensor, tuple[Served, ...]]:
        if self.over is not None:
            return self._combine_elements(records, plate_called(self.over, records))
        parts = self.parts(records)
        costs = [self._costs(part) for part in parts]
        values = [part.scale * self.value(one).sum() for part, one in zip(parts, costs, strict=True)]
        loss = -sum(values[1:], values[0]) / self.num_particles
        if not torch.is_grad_enabled():
            return loss, loss, ()
        groups = [_Group(self, part, one.detach()) for part, one in zip(parts, costs, strict=True)]
        direct = [self.direct(part, one) for part, one in zip(parts, costs, strict=True)]
        served, start = [], 0
        for record in records:
            lanes = slice(start, start := start + lanes_of(record))
            places = {entry.name: place for place, entry in enumerate(record.entries) if entry.draw is not None}
            for draw, signal, estimator in record.served():
                group = next(group for group in groups if group.part.holds(places[draw.name]))
                served.append((draw, group.signal(draw.log_prob.dim(), signal, lanes), estimator))
        return loss, sum(direct[1:], direct[0]), merged(served)

    def _combine_elements(self, records: Sequence[Record], plate: Plate) -> tuple[Tensor, Tensor, tuple[Served, ...]]:
        """`combine` where each element of a plate is a run."""
        for record in records:
            check_nothing_is_summed_over(record, type(self).__name__)
        costs = costs_of_elements(records, plate).reshape(self.num_particles, -1)
        joint = -self.value(costs)
        if not torch.is_grad_enabled():
            return joint.mean(), joint.mean(), ()
        fixed = costs.detach()
        signals = SignalsOfElements(plate, self.credit(fixed), self.without(fixed), joint.detach())
        return joint.mean(), joint.mean(), merged(signals.served(records))

    def parts(self, records: Sequence[Record]) -> list[RunsOfPart]:
        """What has a number of its own in each run."""
        shape = (self.num_particles, self.num_importance)
        for record in records:
            check_nothing_is_summed_over(record, type(self).__name__)
        if len(records) > 1:
            return [RunsOfPart(records, -1, frozenset(), shape)]
        found = [RunsOfPart(records, sites, plates, shape) for sites, plates in records[0].parts(self.splits_slices)]
        return [part for part in found if any(entry.cost is not None for entry in part.entries(records[0]))]

    def _costs(self, part: RunsOfPart) -> Tensor:
        """What each run, and each slice, costs: ``(particles, *slices, K)``."""
        return part.total([[e.cost for e in part.entries(record) if e.cost is not None] for record in part.records])


def is_run(run: Tensor, costs: Tensor) -> Tensor:
    """Which of K costs is that of the run, ``(lanes, …, K)``."""
    size = costs.shape[-1]
    which = torch.arange(size, device=costs.device) == run.unsqueeze(-1)
    return which.reshape(len(run), *[1] * (costs.dim() - 2), size)


class _Group:
    """The numbers that K runs share, as signals of their draws.

    Args:
        objective: whose numbers they are.
        part: which draws of the runs have them.
        costs: of each run, and each slice, ``(particles, *slices, K)``.
    """

    def __init__(self, objective: JointObjective, part: RunsOfPart, costs: Tensor):
        self.part = part
        self._objective = objective
        self._costs = costs
        credit, particles = part.scale * objective.credit(costs), len(costs)
        self._credit = _by_lane(credit)
        self._offset = _by_lane(part.scale * objective.offset(costs))
        means = credit.mean(-1, keepdim=True)
        others = (means.sum(0) - means) / (particles - 1) if particles > 1 else torch.zeros_like(means)
        self._others = _by_lane(others.expand_as(costs))
        without = objective.without(costs)
        self._without = None if without is None else _by_lane(part.scale * without)

    def signal(self, dim: int, additive: Signal, lanes: slice) -> Signal:
        """The signal of a draw whose log-probability has ``dim`` dimensions."""
        alternatives = relaxed = base = None
        if additive.has_alternatives:
            change = additive.alternatives - additive.base
            ones = change.dim() - 1  # those of the event, too, where its elements took turns
            alternatives = self._replaced(change, lanes) - self._shaped(self._offset, lanes, ones)
            base = self._shaped(self._credit, lanes, ones)
            if additive.has_relaxed:
                relaxed = self._replaced(additive.relaxed - additive.base.reshape(additive.relaxed.shape[1:]), lanes)
        return Signal(
            {self.part.plates: self._shaped(self._credit, lanes, dim)},
            self.part.plates,
            alternatives,
            base,
            relaxed,
            additive.gradients if additive.has_gradients else None,
            self._shaped(self._others, lanes, dim),
            None if self._without is None else self._shaped(self._without, lanes, dim),
        )

    def _shaped(self, values: Tensor, lanes: slice, dim: int) -> Tensor:
        """``(lanes, *slices)`` in ``dim`` dimensions: the second lane dimension, then slices, then ones."""
        chosen = values[lanes]
        return chosen.reshape(len(chosen), 1, *chosen.shape[1:], *[1] * (dim - 1 - chosen.dim()))

    def _replaced(self, change: Tensor, lanes: slice) -> Tensor:
        """The joint cost if the cost of one run changed by ``change``, shape ``(n, lanes, …)``."""
        size, dim = self._costs.shape[-1], change.dim() - 1
        own = self._shaped(_by_lane(self._costs), lanes, dim) + change / self.part.scale
        everything = self._costs.repeat_interleave(size, 0)[lanes]
        everything = everything.reshape(
            len(everything), 1, *everything.shape[1:-1], *[1] * (dim - everything.dim()), size
        )
        run = torch.arange(self._costs.shape[0] * size, device=change.device)[lanes] % size
        return self.part.scale * self._objective.replaced(everything, own, run)


def _by_lane(values: Tensor) -> Tensor:
    """``(particles, *slices, K)`` to ``(particles × K, *slices)``."""
    return values.movedim(-1, 1).flatten(0, 1)
