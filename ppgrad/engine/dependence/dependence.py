"""What a program's draws and costs were computed from, and what follows: credit, coupled slices, joint sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ppgrad.core import Plate, Plates
from ppgrad.engine.dependence.sums import SumPlan, Wanted, members

SequencePath = tuple[tuple[str, int], ...]
"""The sequential plates around a site, from the outermost in: their names and iterations."""

Draws = int
"""A set of draws: bit i for the draw at the i-th site of the program."""


class Structure(NamedTuple):
    """What of a site tells one structure of a program from another."""

    name: str
    plates: Plates
    sequence: SequencePath
    is_random: bool
    has_cost: bool


class Part(NamedTuple):
    """Sites that share no draw with the others, and the plates whose slices do not share any of theirs."""

    sites: int
    plates: Plates


@dataclass(frozen=True, eq=False)
class Dependence:
    """Of each site of one structure the draws that its value and its cost were computed from.

    A draw *reaches* a cost if the cost was computed from it, or from a later draw whose distribution it reaches. It
    reaches *other slices* of a plate around both if there is a way through a site outside of the plate, or through a
    computation that mixes the slices.

    Args:
        sites: in program order: the guide's, then the model's.
        values: for each random site the draws that its distribution was computed from.
        costs: for each site the draws that its cost was computed from, its own included.
        mixed: for a plate and a site the draws of other slices that its value or its cost was computed from.
        notes: where a value left torch, so that what comes after is taken to depend on all that came before.
        guide_sites: how many of the sites are the guide's.
    """

    sites: tuple[Structure, ...]
    values: tuple[Draws, ...]
    costs: tuple[Draws, ...]
    mixed: Mapping[tuple[Plate, int], Draws] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    guide_sites: int = 0

    def reaching(self, direct: Draws) -> Draws:
        """``direct`` and all draws that reach one of them."""
        found = 0
        while direct:
            last = direct.bit_length() - 1
            found |= self._reaching_value[last] | 1 << last
            direct &= ~found
        return found

    @cached_property
    def _reaching_value(self) -> list[Draws]:
        found: list[Draws] = []
        for site, direct in zip(self.sites, self.values, strict=True):
            reach = 0
            while site.is_random and direct:
                last = direct.bit_length() - 1
                reach |= found[last] | 1 << last
                direct &= ~reach
            found.append(reach)
        return found

    @cached_property
    def reaching_cost(self) -> list[Draws]:
        """For each site the draws that reach its cost."""
        return [self.reaching(direct) for direct in self.costs]

    @cached_property
    def _outside(self) -> dict[Plate, Draws]:
        """For each plate the random sites outside of it."""
        plates = {plate for site in self.sites for plate in site.plates}
        return {
            plate: _set(i for i, s in enumerate(self.sites) if s.is_random and plate not in s.plates)
            for plate in plates
        }

    def _from_other_slices(self, plate: Plate, direct: Draws, site: int) -> Draws:
        """The draws that reach a site in other slices of a plate around it, if it was computed from ``direct``."""
        reaching = self.reaching(direct)
        found = self._through(reaching & self._outside[plate])
        for (where, mixing), draws in self.mixed.items():
            if where == plate and (mixing == site or reaching >> mixing & 1):
                found |= self.reaching(draws)
        return found

    def _through(self, draws: Draws) -> Draws:
        """The draws that reach the distributions of ``draws``."""
        found = 0
        while draws:
            last = draws.bit_length() - 1
            found |= self._reaching_value[last]
            draws &= ~(found | 1 << last)
        return found

    @cached_property
    def reached(self) -> list[int]:
        """For each random site the costs that it reaches, as a set of sites."""
        return self._turned(self.reaching_cost, [i for i, site in enumerate(self.sites) if site.has_cost])

    @cached_property
    def _reached_elsewhere(self) -> dict[Plate, list[int]]:
        """For each plate and each random site the costs that it reaches in other slices of the plate."""
        found = {}
        for plate in self._outside:
            costs = [i for i, site in enumerate(self.sites) if site.has_cost and plate in site.plates]
            draws = [0] * len(self.sites)
            for i in costs:
                draws[i] = self._from_other_slices(plate, self.costs[i], i)
            if any(draws):
                found[plate] = self._turned(draws, costs)
        return found

    def _turned(self, draws: Sequence[Draws], sites: Sequence[int]) -> list[int]:
        """From the draws of each of some sites to the sites of each draw."""
        count = len(self.sites)
        width = (count + 7) // 8
        table = np.zeros((count, count), dtype=np.uint8)
        for i in sites:
            bits = np.frombuffer(draws[i].to_bytes(width, "little"), dtype=np.uint8)
            table[i] = np.unpackbits(bits, bitorder="little", count=count)
        packed = np.packbits(table.T, axis=1, bitorder="little")
        return [int.from_bytes(row.tobytes(), "little") for row in packed]

    def coupled(self, draw: int) -> Plates:
        """The plates around a draw whose slices cannot be replaced all at once: some cost depends on several of them.

        That is a cost which the draw reaches from another slice, or one outside of the plate.
        """
        return self._coupled[draw]

    @cached_property
    def _coupled(self) -> dict[int, Plates]:
        inside = {
            plate: _set(i for i, site in enumerate(self.sites) if plate in site.plates) for plate in self._outside
        }
        elsewhere = self._reached_elsewhere
        return {
            i: frozenset(
                plate
                for plate in site.plates
                if self.reached[i] & ~inside[plate] or (plate in elsewhere and elsewhere[plate][i])
            )
            for i, site in enumerate(self.sites)
            if site.is_random
        }

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The program in parts that share no draw, each with the plates whose slices share none either.

        It is one part where no plate has such slices, and where a value has left torch.
        """
        whole = (Part(_set(range(len(self.sites))), frozenset()),)
        if self.notes:
            return whole
        constant, groups = 0, list[int]()
        for i, site in enumerate(self.sites):
            draws = self._reaching_value[i] | 1 << i if site.is_random else 0
            draws |= self.reaching_cost[i] if site.has_cost else 0
            if not draws:
                constant |= 1 << i
                continue
            joined = draws | 1 << i
            joined |= sum(group for group in groups if group & joined)
            groups = [group for group in groups if not group & joined] + [joined]
        parts = [Part(group, self._apart(group)) for group in groups]
        if not any(part.plates for part in parts):
            return whole
        return (*parts, *([Part(constant, frozenset())] if constant else []))

    def _apart(self, group: int) -> Plates:
        places = [i for i in members(group) if self.sites[i].is_random or self.sites[i].has_cost]
        shared = frozenset.intersection(*(self.sites[i].plates for i in places))
        return shared.difference(*(self.coupled(i) for i in places if self.sites[i].is_random))

    def with_scores(self, scored: tuple[bool, ...]) -> Dependence:
        """The same where each draw that is ``scored`` has a cost that is computed from it and from its distribution."""
        if scored not in self._scored:
            sites = [
                site._replace(has_cost=site.has_cost or has_score)
                for site, has_score in zip(self.sites, scored, strict=True)
            ]
            costs = [
                cost | (value | 1 << i if has_score else 0)
                for i, (cost, value, has_score) in enumerate(zip(self.costs, self.values, scored, strict=True))
            ]
            self._scored[scored] = replace(self, sites=tuple(sites), costs=tuple(costs))
        return self._scored[scored]

    @cached_property
    def _scored(self) -> dict[tuple[bool, ...], Dependence]:
        return {}

    @cached_property
    def downstream(self) -> SumPlan:
        """How to add up, from the last draw to the first, the costs that each one reaches."""
        elsewhere = self._reached_elsewhere
        wanted = []
        for i in reversed(self.draws):
            plates = self.sites[i].plates
            wanted.append(Wanted(self.reached[i], plates, {p: elsewhere[p][i] for p in plates & elsewhere.keys()}))
        return SumPlan.of(wanted, [site.plates for site in self.sites])

    @cached_property
    def draws(self) -> list[int]:
        """The places of the random sites."""
        return [i for i, site in enumerate(self.sites) if site.is_random]

    def upstream(self, scored: Draws) -> SumPlan:
        """How to add up, over those ``scored``, the draws that reach a site's value, then its cost, for each site."""
        wanted = []
        for i, site in enumerate(self.sites):
            for direct in (self.values[i], self.costs[i]):
                other = {plate: self._from_other_slices(plate, direct, i) for plate in site.plates}
                wanted.append(Wanted(self.reaching(direct) & scored, site.plates, other))
        return SumPlan.of(wanted, [site.plates for site in self.sites])


def _set(places: Iterable[int]) -> int:
    return sum(1 << i for i in places)
