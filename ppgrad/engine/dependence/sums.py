"""Sums over overlapping sets of terms, each term added as seldom as the sets allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ppgrad.core import Plate, Plates, sum_plates

Sums = dict[Plates, Tensor]
"""Sums of terms by the plates whose slices they are kept apart in."""


class Wanted(NamedTuple):
    """A sum that is asked for.

    Args:
        terms: the set of its terms, bit i for the i-th.
        plates: where slices matter to who asks.
        coupled: for each of these plates the terms whose slices are to be added up.
    """

    terms: int
    plates: Plates
    coupled: Mapping[Plate, int]


class _Source(NamedTuple):
    """What is added: a term, or a part of an earlier sum; over ``plates`` it is summed first."""

    earlier: int | None
    part: Plates
    term: int
    plates: Plates


@dataclass(frozen=True)
class SumPlan:
    """How to compute sums one from the other: the work is linear where each set holds the one before, or splits.

    Planned once for a structure: every sum takes the largest earlier sums that lie in it as they are, nearest first,
    and adds the terms that are left. Where sets neither hold one another nor are apart, a sum is at worst a sum of
    its terms: the additions are at most sums × terms.
    """

    steps: tuple[tuple[tuple[Plates, tuple[_Source, ...]], ...], ...]

    @classmethod
    def of(cls, wanted: Sequence[Wanted], plates: Sequence[Plates]) -> SumPlan:
        """The plan for ``wanted``, in this order, of terms that lie in ``plates``."""
        inside: dict[Plate, int] = {}
        for i, around in enumerate(plates):
            for plate in around:
                inside[plate] = inside.get(plate, 0) | 1 << i
        made: list[dict[Plates, int]] = []
        steps = []
        asked = [want.plates for want in wanted]
        still_asked: list[Plates] = list(accumulate(reversed(asked), lambda one, other: one | other))[::-1]
        for want, kept in zip(wanted, still_asked, strict=True):
            parts: dict[Plates, int] = {}
            sources: dict[Plates, list[_Source]] = {}
            for terms, apart, together in _kinds(want, inside):
                for key, source, covered in _covered(terms, apart, kept - together, made, plates):
                    parts[key] = parts.get(key, 0) | covered
                    sources.setdefault(key, []).append(source)
            made.append(parts)
            steps.append(tuple((key, tuple(found)) for key, found in sources.items()))
        return cls(tuple(steps))

    def sums(self, terms: Sequence[Tensor]) -> list[Sums]:
        """The sums of ``terms``, in the order in which they were wanted."""
        made: list[Sums] = []
        for step in self.steps:
            sums: Sums = {}
            for key, sources in step:
                for source in sources:
                    term = terms[source.term] if source.earlier is None else made[source.earlier][source.part]
                    if source.plates:
                        term = sum_plates(term, source.plates)
                    sums[key] = sums[key] + term if key in sums else term
            made.append(sums)
        return made


def members(terms: int) -> Iterator[int]:
    """The places of the bits that are set."""
    while terms:
        lowest = terms & -terms
        yield lowest.bit_length() - 1
        terms ^= lowest


def moved(terms: int, places: Sequence[int]) -> int:
    """The set with ``places[i]`` for each i of ``terms``."""
    bits = np.frombuffer(terms.to_bytes((len(places) + 7) // 8, "little"), dtype=np.uint8)
    table = np.zeros(max(places, default=0) + 1, dtype=np.uint8)
    table[np.asarray(places, dtype=int)] = np.unpackbits(bits, bitorder="little", count=len(places))
    return int.from_bytes(np.packbits(table, bitorder="little").tobytes(), "little")


def _kinds(want: Wanted, inside: Mapping[Plate, int]) -> list[tuple[int, Plates, Plates]]:
    """The wanted terms by the plates in which their slices stay apart, and those over which they are added up."""
    kinds: list[tuple[int, Plates, Plates]] = [(want.terms, frozenset(), frozenset())]
    for plate in want.plates:
        there, coupled = inside.get(plate, 0), want.coupled.get(plate, 0)
        kinds = [
            kind
            for terms, apart, together in kinds
            for kind in (
                (terms & ~there, apart, together),
                (terms & there & coupled, apart, together | {plate}),
                (terms & there & ~coupled, apart | {plate}, together),
            )
            if kind[0]
        ]
    return [kind for kind in kinds if kind[0]]


def _covered(
    terms: int, apart: Plates, kept: Plates, made: Sequence[Mapping[Plates, int]], plates: Sequence[Plates]
) -> Iterator[tuple[Plates, _Source, int]]:
    """What to add up for ``terms``: each source, the plates that it keeps apart, and the terms that it covers."""
    for earlier in range(len(made) - 1, -1, -1):
        if not terms:
            return
        for key, covered in made[earlier].items():
            if covered & ~terms == 0 and apart <= key:
                terms &= ~covered
                yield key & kept, _Source(earlier, key, 0, key - kept), covered
    for i in members(terms):
        yield plates[i] & kept, _Source(None, frozenset(), i, plates[i] - kept), 1 << i
