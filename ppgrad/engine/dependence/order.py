"""What can be said of a program's dependence from the order of its sites alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ppgrad.engine.dependence.dependence import Dependence, Draws, SequencePath, Structure

AGAIN = -1
"""In place of an iteration: the plate is walked again, and which iteration this is cannot be told."""


@dataclass(frozen=True)
class Traced:
    """What following the values of a program has found of one site.

    Args:
        site: which.
        value: the draws that its distribution was computed from, as places of sites.
        cost: the same of its cost.
        is_followed: whether no value had left torch before it; else all that came before counts.
        replays: the place of the guide's site whose value the model takes here; None elsewhere.
        in_guide: whether it is the guide's.
        reads_own: whether its cost was computed from its value, and not from distributions alone.
        hides: a random site whose value is not seen, such as a factor in a guide: all that follows depends on it.
    """

    site: Structure
    value: Draws
    cost: Draws
    is_followed: bool
    replays: int | None
    in_guide: bool
    reads_own: bool = True
    hides: bool = False


def dependence_of(traced: Sequence[Traced], notes: tuple[str, ...] = ()) -> Dependence:
    """The dependence of a program whose values were followed as far as they stayed within torch.

    From where a value left torch on a site depends on every draw before it, but for two rules: a term of the model does
    not depend on a draw of the guide before that draw, or a later one of the guide, is replayed in the model; and
    iterations of one sequential plate are independent of each other. Where one plate object is walked twice its
    iterations cannot be told apart, and all of them count.
    """
    before = _Before({name for one in traced for name, place in one.site.sequence if place == AGAIN})
    values: list[Draws] = []
    costs: list[Draws] = []
    hidden: Draws = 0
    for i, one in enumerate(traced):
        value, cost, own = one.value, one.cost, 1 << i
        if one.reads_own:
            before.reach(one, i)
        if not one.is_followed:
            unknown = before.draws(one)
            value, cost = value | unknown, cost | unknown
        before.reach(one, i)
        value, cost = value | hidden, cost | hidden
        if one.site.is_random:
            before.add(one.site.sequence, i, one.in_guide)
            cost |= own
            hidden |= own if one.hides else 0
        if one.replays is not None:
            cost |= 1 << one.replays if one.reads_own else values[one.replays]
        values.append(value & (own - 1))  # what comes later shares memory with it, and no more
        costs.append(cost)
    sites, guided = tuple(one.site for one in traced), sum(one.in_guide for one in traced)
    return Dependence(sites, tuple(values), tuple(costs), notes=notes, guide_sites=guided)


def ordered(
    sites: Sequence[Structure], in_guide: Sequence[bool], replays: Sequence[int | None], reads_own: Sequence[bool]
) -> Dependence:
    """The dependence of a program of whose values nothing is known."""
    traced = [
        Traced(site, 0, 0, False, replayed, guided, reads)
        for site, guided, replayed, reads in zip(sites, in_guide, replays, reads_own, strict=True)
    ]
    return dependence_of(traced)


class _Before:
    """The draws that a site may depend on for all that its place in the program tells."""

    def __init__(self, walked_again: set[str]):
        self._walked_again = walked_again
        self._guide: Draws = 0
        self._seen: Draws = 0
        self._loops: dict[SequencePath, dict[str, Draws]] = {}
        self._iterations: dict[SequencePath, Draws] = {}

    def add(self, sequence: SequencePath, place: int, in_guide: bool) -> None:
        own = 1 << place
        if in_guide:
            self._guide |= own
        else:
            self._seen |= own
        for depth in range(len(sequence)):
            outer, inner = sequence[:depth], sequence[: depth + 1]
            loops = self._loops.setdefault(outer, {})
            loops[sequence[depth][0]] = loops.get(sequence[depth][0], 0) | own
            self._iterations[inner] = self._iterations.get(inner, 0) | own

    def reach(self, one: Traced, place: int) -> None:
        """The model has come to a site: what it replays is known from here on, and what the guide drew before that."""
        if one.replays is not None:
            self._seen |= self._guide & ((2 << one.replays) - 1)

    def draws(self, one: Traced) -> Draws:
        found = self._guide if one.in_guide else self._seen
        sequence = one.site.sequence
        for depth, (name, _) in enumerate(sequence):
            if name in self._walked_again:
                continue
            others = self._loops.get(sequence[:depth], {}).get(name, 0)
            found &= ~(others & ~self._iterations.get(sequence[: depth + 1], 0))
        return found
