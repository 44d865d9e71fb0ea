"""Credit: which costs can depend on which draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ppgrad.core import Plates, sum_plates

Sums = dict[Plates, Tensor]
SequencePath = tuple[tuple[str, int], ...]
"""The sequential plates around a site, from the outermost in: their names and iterations."""


class Credited(Protocol):
    """What the sweep needs to know of a site."""

    @property
    def plates(self) -> Plates: ...
    @property
    def sequence(self) -> SequencePath: ...
    @property
    def cost(self) -> Tensor | None: ...
    @property
    def is_random(self) -> bool: ...


def downstream_costs(sites: Sequence[Credited]) -> list[Sums]:
    """For each site, in program order, the costs that can depend on it, summed by their plates.

    Only what comes after a draw can depend on it. Costs in other slices of a plate around the draw
    are left out, by two rules that hold for every program that keeps Pyro's plate semantics:

    * A cost in plate P is kept apart by slice, unless a random site outside P lies between the
      draw and the cost. That site may have seen every slice, so the slices are added up.
    * Costs in other iterations of a sequential plate are left out; costs after the loop are not.

    One backward sweep: each cost is added once for itself and once for each sequential plate it
    leaves, so the work is linear in the number of sites.

    Source: Schulman et al. (2015), Gradient estimation using stochastic computation graphs,
    theorem 1; Ranganath et al. (2014), Black box variational inference, section 3.1.
    """
    sweep = _Sweep()
    result: list[Sums] = [{}] * len(sites)
    for i in range(len(sites) - 1, -1, -1):
        site = sites[i]
        sweep.move_to(site.sequence)
        if site.cost is not None:
            sweep.add(site.plates, site.cost)
        if site.is_random:
            result[i] = dict(sweep.running)
            sweep.couple(site.plates)
    return result


@dataclass
class _Loop:
    """A sequential plate that the sweep is inside of."""

    name: str
    iteration: int
    after: Sums
    own: Sums = field(default_factory=dict)
    finished: Sums = field(default_factory=dict)
    coupled: Plates | None = None


class _Sweep:
    def __init__(self) -> None:
        self.running: Sums = {}
        self._loops: list[_Loop] = []

    def move_to(self, path: SequencePath) -> None:
        depth = 0
        while depth < min(len(path), len(self._loops)):
            loop = self._loops[depth]
            if (loop.name, loop.iteration) != path[depth]:
                break
            depth += 1
        while len(self._loops) > depth + 1:
            self._leave()
        if len(self._loops) > depth:
            loop = self._loops[depth]
            if len(path) > depth and loop.name == path[depth][0]:
                _merge(loop.finished, loop.own)
                loop.own, loop.iteration = {}, path[depth][1]
                self.running = dict(loop.after)
                depth += 1
            else:
                self._leave()
        for name, iteration in path[depth:]:
            self._loops.append(_Loop(name, iteration, after=dict(self.running)))

    def add(self, plates: Plates, cost: Tensor) -> None:
        _merge(self.running, {plates: cost})
        if self._loops:
            _merge(self._loops[-1].own, {plates: cost})

    def couple(self, plates: Plates) -> None:
        self.running = _collapse(self.running, plates)
        if self._loops:
            loop = self._loops[-1]
            loop.own = _collapse(loop.own, plates)
            loop.coupled = plates if loop.coupled is None else loop.coupled & plates

    def _leave(self) -> None:
        loop = self._loops.pop()
        _merge(loop.finished, loop.own)
        if loop.coupled is not None:
            loop.after = _collapse(loop.after, loop.coupled)
        self.running = loop.after
        _merge(self.running, loop.finished)
        if self._loops:
            outer = self._loops[-1]
            if loop.coupled is not None:
                outer.own = _collapse(outer.own, loop.coupled)
                outer.coupled = loop.coupled if outer.coupled is None else outer.coupled & loop.coupled
            _merge(outer.own, loop.finished)


def _merge(into: Sums, other: Sums) -> None:
    for plates, cost in other.items():
        into[plates] = into[plates] + cost if plates in into else cost


def _collapse(sums: Sums, plates: Plates) -> Sums:
    if all(inside <= plates for inside in sums):
        return sums
    collapsed: Sums = {}
    for inside, cost in sums.items():
        _merge(collapsed, {inside & plates: sum_plates(cost, inside - plates)})
    return collapsed
