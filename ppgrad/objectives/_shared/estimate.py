"""One stochastic estimate of an objective and of its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ppgrad.core import Learns, Memory, Remembers
from ppgrad.engine.running.record import Record, Served
from ppgrad.engine.running.rewards import Rewards, rewards_of


@dataclass(frozen=True)
class Estimate:
    """One stochastic estimate of an objective and of its gradient.

    Args:
        loss: minus the objective, a scalar.
        surrogate: a scalar whose gradient estimates that of the loss.
        served: the draws, their signals and their estimators, for the memory to learn from.
        records: the executions that it is made from; none where it comes from a compiled graph.
        counted: the rewards that such a graph has added up.
    """

    loss: Tensor
    surrogate: Tensor
    served: tuple[Served, ...]
    records: tuple[Record, ...] = ()
    counted: Rewards | None = None

    def rewards(self, lanes: int) -> Rewards:
        """What its ``lanes`` executions have earned."""
        return rewards_of(self.records, lanes) if self.counted is None else self.counted

    def learned_from(self, memory: Mapping[str, Memory]) -> tuple[Tensor, dict[str, Memory]]:
        """The surrogate with the critics' losses, and what the estimators remember from now on."""
        surrogate, learned = self.surrogate, dict(memory)
        for draw, signal, estimator in self.served:
            remembered = learned.get(draw.name, {})
            own = estimator.own_loss(draw, signal, remembered) if isinstance(estimator, Learns) else None
            surrogate = surrogate if own is None else surrogate + own
            updated = estimator.update(draw, signal, remembered) if isinstance(estimator, Remembers) else remembered
            if updated is not remembered:
                learned[draw.name] = updated
        return surrogate, learned
