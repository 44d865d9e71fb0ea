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


AGAIN = -1
"""In place of an iteration: the plate is walked again, and which iteration this is cannot be told."""


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


def downstream_costs(sites: Sequence[Credited], detached: bool = False) -> list[Sums]:
    """For each site, in program order, the costs that can depend on it, summed by their plates.

    With ``detached`` the sums carry no gradient.

    Only what comes after a draw can depend on it. Costs in other slices of a plate around the draw
    are left out, by two rules that hold for every program that keeps Pyro's plate semantics:

    * A cost in plate P is kept apart by slice, unless a random site outside P lies between the
      draw and the cost. That site may have seen every slice, so the slices are added up.
    * Costs in other iterations of a sequential plate are left out; costs after the loop are not. Where
      one plate object is walked twice its iterations cannot be told apart, and all of them count.

    One backward sweep: each cost is added once for itself and once for each sequential plate it
    leaves, so the work is linear in the number of sites.

    Source: Schulman et al. (2015), Gradient estimation using stochastic computation graphs,
    theorem 1; Ranganath et al. (2014), Black box variational inference, section 3.1.
    """
    sweep = _Sweep()
    again = {name for site in sites for name, place in site.sequence if place == AGAIN}
    result: list[Sums] = [{}] * len(sites)
    for i in range(len(sites) - 1, -1, -1):
        site = sites[i]
        sweep.move_to(tuple(step for step in site.sequence if step[0] not in again) if again else site.sequence)
        if site.cost is not None:
            sweep.add(site.plates, site.cost.detach() if detached else site.cost)
        if site.is_random:
            result[i] = dict(sweep.running)
            sweep.couple(site.plates)
    return result


@dataclass
class _Iteration:
    """What the sweep has met in one iteration of a sequential plate.

    Args:
        own: its costs.
        coupled: the plates that all of its random sites lie in; None if it has none.
    """

    own: Sums = field(default_factory=dict)
    coupled: Plates | None = None

    def couple(self, plates: Plates) -> None:
        self.own = _collapse(self.own, plates)
        self.coupled = plates if self.coupled is None else self.coupled & plates


@dataclass
class _Loop:
    """A sequential plate that the sweep is inside of.

    A guide and its model walk the same plate one after the other, so an iteration may be met again.
    """

    name: str
    place: int
    after: Sums
    iterations: dict[int, _Iteration] = field(default_factory=dict)

    @property
    def current(self) -> _Iteration:
        return self.iterations.setdefault(self.place, _Iteration())


class _Sweep:
    def __init__(self) -> None:
        self.running: Sums = {}
        self._loops: list[_Loop] = []

    def move_to(self, path: SequencePath) -> None:
        if not path and not self._loops:
            return
        depth = 0
        while depth < min(len(path), len(self._loops)):
            loop = self._loops[depth]
            if (loop.name, loop.place) != path[depth]:
                break
            depth += 1
        while len(self._loops) > depth + 1:
            self._leave()
        if len(self._loops) > depth:
            if len(path) > depth and self._loops[depth].name == path[depth][0]:
                self._enter(self._loops[depth], path[depth][1])
                depth += 1
            else:
                self._leave()
        for name, place in path[depth:]:
            self._loops.append(_Loop(name, place, after=dict(self.running)))

    def add(self, plates: Plates, cost: Tensor) -> None:
        _merge(self.running, {plates: cost})
        if self._loops:
            _merge(self._loops[-1].current.own, {plates: cost})

    def couple(self, plates: Plates) -> None:
        self.running = _collapse(self.running, plates)
        if self._loops:
            self._loops[-1].current.couple(plates)

    def _enter(self, loop: _Loop, place: int) -> None:
        """Go to another iteration: what is after the loop, and what of this iteration was met before."""
        loop.place = place
        iteration = loop.current
        after = loop.after if iteration.coupled is None else _collapse(loop.after, iteration.coupled)
        self.running = dict(after)
        _merge(self.running, iteration.own)

    def _leave(self) -> None:
        loop = self._loops.pop()
        self.running = loop.after
        for iteration in loop.iterations.values():
            if iteration.coupled is not None:
                self.running = _collapse(self.running, iteration.coupled)
                if self._loops:
                    self._loops[-1].current.couple(iteration.coupled)
        for iteration in loop.iterations.values():
            _merge(self.running, iteration.own)
            if self._loops:
                _merge(self._loops[-1].current.own, iteration.own)


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
