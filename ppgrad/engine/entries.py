"""A record: what one execution leaves, all lanes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from ppgrad.core import Draw, Estimator, Plates, Signal
from ppgrad.core.draw import Chain
from ppgrad.engine.credit import SequencePath, downstream_costs

Served = tuple[Draw, Signal, Estimator]


@dataclass(frozen=True)
class Stopped:
    """Of one site, as functions of the values drawn alone: its cost, and its density if it is random."""

    cost: Tensor | None
    density: Tensor | None


class Entry(NamedTuple):
    """One site of a `Record`: over all lanes, padded to a common number of plate dimensions.

    ``active`` is false where nothing depends on the draw, None where the program does not say.
    """

    name: str
    plates: Plates
    sequence: SequencePath
    is_random: bool
    is_summed_over: bool
    estimator: Estimator | None
    cost: Tensor | None
    draw: Draw | None
    alternatives: Tensor | None
    base: Tensor | None
    relaxed: Tensor | None
    gradients: Tensor | None
    stopped: Stopped | None = None
    reward: Tensor | None = None
    active: Tensor | None = None


@dataclass(frozen=True)
class Record:
    """One execution: the sites in program order, all lanes at once.

    Lanes whose programs took different turns come as records of their own.
    """

    entries: tuple[Entry, ...]

    @property
    def costs(self) -> list[Tensor]:
        return [entry.cost for entry in self.entries if entry.cost is not None]

    def served(self) -> list[Served]:
        """Each draw that has a surrogate, with the cost downstream of it."""
        if all(entry.draw is None for entry in self.entries):
            return []
        served: list[Served] = []
        chains: dict[Any, Chain] = {}
        for entry, parts in zip(self.entries, downstream_costs(self.entries, detached=True), strict=True):
            if entry.draw is None or entry.estimator is None:
                continue
            signal = Signal(
                parts,
                entry.plates,
                entry.alternatives,
                entry.base,
                entry.relaxed,
                entry.gradients,
                like=entry.draw.log_prob,
            )
            if entry.estimator.looks_ahead:  # for the others draws and signals would hold each other in memory
                chains.setdefault((entry.estimator, entry.plates), Chain()).append(entry.draw, signal)
            served.append((entry.draw, signal, entry.estimator))
        return served


def padded(tensor: Tensor, depth: int, batch: int | None = None) -> Tensor:
    """Insert ones behind the two lane dimensions, up to ``depth`` plate dimensions.

    Args:
        tensor: lanes, then ``batch`` dimensions, then anything.
        depth: how many dimensions are to stand where the batch dimensions do.
        batch: how many there are; None for all but the lanes.
    """
    missing = depth - (tensor.dim() - 2 if batch is None else batch)
    return tensor.reshape(*tensor.shape[:2], *[1] * missing, *tensor.shape[2:]) if missing > 0 else tensor
