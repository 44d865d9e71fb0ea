"""All that can happen in a program, with its probabilities: enumeration and quadrature, by torch's autograd alone.

It shares nothing with the engine. Runs are worlds side by side in the first dimension of each value, then come two for
the plates and those of the event. A draw replaces each world by one for each of its values; a branch parts the worlds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ppgrad.testing.programs.data import Branch, Cost, Draw, Fn, Let, Loop, Observe, Place, Program, Step
from ppgrad.testing.programs.families import FAMILIES, Rough, distribution

MOST_WORLDS = 20_000


class TooLarge(Exception):
    """A program has more outcomes than can be summed over."""


@dataclass
class Worlds:
    """Worlds that have taken the same branches.

    Args:
        values: what a name stands for, ``(worlds, plates, plates, *event)`` each.
        log_prob: the logarithm of their probability, given the elements of subsampled plates; ``(worlds,)``.
        log_shared: that of those elements; ``group`` tells them apart.
        terms: by kind, what was added up: "reward", "discounted", "log_p", "log_q"; "ratio", log q − log p of one draw,
            and "weight", by which scales and masks multiply it; ``(worlds, plates, plates)`` each.
        times: how many rewards there were so far, by iteration of sequential plates.
    """

    values: dict[str, Tensor]
    log_prob: Tensor
    log_shared: Tensor
    group: Tensor
    terms: tuple[tuple[str, Tensor], ...] = ()
    times: Mapping[tuple[Any, ...], int] = field(default_factory=dict)

    def at(self, index: Tensor) -> Worlds:
        """Those worlds, some of them perhaps often."""
        return Worlds(
            {name: value[index] for name, value in self.values.items()},
            self.log_prob[index],
            self.log_shared[index],
            self.group[index],
            tuple((kind, term[index]) for kind, term in self.terms),
            self.times,
        )

    def with_term(self, kind: str, term: Tensor) -> Worlds:
        return replace(self, terms=(*self.terms, (kind, term)))


@dataclass(frozen=True)
class Outcomes:
    """All that can happen: worlds with what they earn, ``(worlds, parts)``; parts are slices, or one for the whole.

    Args:
        log_prob, log_shared, group: as of `Worlds`.
        reward: discounted.
        log_p, log_q: densities of the model and of the guide, rewards among those of the model.
        ratios: log q − log p of each draw as it is, and its weight, ``(worlds, plates, plates)`` each.
        scale: of subsampled plates, where parts are slices and it is not in the terms.
    """

    log_prob: Tensor
    log_shared: Tensor
    group: Tensor
    reward: Tensor
    log_p: Tensor
    log_q: Tensor
    ratios: tuple[tuple[Tensor, Tensor], ...]
    scale: float = 1.0


class Interpreter:
    """Runs a program in all worlds.

    Args:
        program: what is run.
        parameters: by name; the gradient is with respect to these tensors.
        nodes: of the quadrature of one continuous element.
        discount: γ of the rewards.
        by_slice: each slice of the plates is a part of its own.
        rough: as of `FAMILIES`.
    """

    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, Tensor],
        nodes: int,
        discount: float = 1.0,
        by_slice: bool = False,
        rough: Rough = "",
    ):
        self._program = program
        self._parameters = dict(parameters)
        self._nodes = nodes
        self._discount = discount
        self._by_slice = by_slice
        self._rough = rough
        self._plates = {plate.name: plate for plate in program.plates}

    def outcomes(self) -> list[Outcomes]:
        """All worlds, those of one structure together."""
        worlds = Worlds({}, torch.zeros(1), torch.zeros(1), torch.zeros(1, dtype=torch.long))
        for plate in self._program.plates:
            if plate.subsample:
                chosen = torch.tensor(list(itertools.combinations(range(plate.size), plate.subsample)))
                shape = (-1, plate.subsample, 1) if plate.dim == -2 else (-1, 1, plate.subsample)
                count, old = len(chosen), len(worlds.log_prob)
                worlds = worlds.at(torch.arange(old).repeat_interleave(count))
                worlds.values[plate.name] = chosen.reshape(shape).repeat(old, 1, 1)
                worlds.log_shared = worlds.log_shared - math.log(count)
                worlds.group = torch.arange(old * count)
        return [self._outcome(each) for each in self._run(self._program.steps, [worlds], {}, ())]

    def _run(
        self, steps: Sequence[Step], worlds: list[Worlds], loops: dict[str, int], sequence: tuple[Any, ...]
    ) -> list[Worlds]:
        for step in steps:
            worlds = [after for before in worlds for after in self._step(step, before, loops, sequence)]
            if sum(len(each.log_prob) for each in worlds) > MOST_WORLDS:
                raise TooLarge(f"more than {MOST_WORLDS} outcomes")
        return worlds

    def _step(self, step: Step, worlds: Worlds, loops: dict[str, int], sequence: tuple[Any, ...]) -> list[Worlds]:
        if isinstance(step, Loop):
            found = [worlds]
            for i in range(step.count):
                inside = (*sequence, (step.variable, i)) if step.kind == "plate" else sequence
                found = self._run(step.steps, found, {**loops, step.variable: i}, inside)
            return found
        if isinstance(step, Branch):
            holds = self._evaluate(step.condition, worlds, loops).expand(len(worlds.log_prob), 1, 1).reshape(-1)
            taken, other = worlds.at(holds.nonzero()[:, 0]), worlds.at((~holds).nonzero()[:, 0])
            found = self._run(step.then, [taken], loops, sequence) if holds.any() else []
            return found + (self._run(step.otherwise, [other], loops, sequence) if not holds.all() else [])
        if isinstance(step, Let):
            value = self._evaluate(step.value, worlds, loops) + torch.zeros(len(worlds.log_prob), 1, 1)
            return [replace(worlds, values={**worlds.values, step.variable: value})]
        if isinstance(step, Cost):
            return [self._cost(step, worlds, loops, sequence)]
        if isinstance(step, Observe):
            data = self._evaluate(step.data, worlds, loops)
            density = self._density(step.fn, data, step.place, worlds, loops)
            return [worlds.with_term("log_p", self._weighted(density, step.place, worlds, loops))]
        return [self._draw(step, worlds, loops)]

    def _cost(self, step: Cost, worlds: Worlds, loops: dict[str, int], sequence: tuple[Any, ...]) -> Worlds:
        shape = self._shape(step.place, worlds)
        reward = -self._weighted(self._evaluate(step.value, worlds, loops).expand(shape), step.place, worlds, loops)
        time = worlds.times.get(sequence, 0)
        after = replace(worlds, times={**worlds.times, sequence: time + 1})
        return after.with_term("reward", reward).with_term("discounted", self._discount**time * reward)

    def _draw(self, step: Draw, worlds: Worlds, loops: dict[str, int]) -> Worlds:
        family = FAMILIES[step.fn.family]
        shape = (*self._shape(step.place, worlds), *step.fn.event)
        with torch.no_grad():
            fn = distribution(family, self._arguments(step.fn, shape, worlds, loops))
            points, log_weights = family.points(fn, self._nodes, self._rough)
            points, log_weights = points.movedim(0, 1), log_weights.movedim(0, 1)  # worlds first
        elements = math.prod(shape[1:])
        count = points.shape[1] ** elements
        if len(worlds.log_prob) * count > MOST_WORLDS:
            raise TooLarge(f"{len(worlds.log_prob) * count} outcomes")
        which = torch.cartesian_prod(*[torch.arange(points.shape[1])] * elements).reshape(1, count, *shape[1:])
        which = which.expand(len(points), *which.shape[1:])
        log_weight = log_weights.expand(shape[0], -1, *shape[1:]).gather(1, which).reshape(-1, elements).sum(1)
        wide = which[(..., *[None] * family.own)].expand(*which.shape, *points.shape[len(shape) + 1 :])
        value = points.gather(1, wide).flatten(0, 1)
        after = worlds.at(torch.arange(len(points)).repeat_interleave(count))
        fn = distribution(family, self._arguments(step.fn, (len(value), *shape[1:]), after, loops))
        log_prob = fn.log_prob(value).reshape(-1, elements).sum(1)
        after.log_prob = after.log_prob + log_prob + log_weight
        after.values[step.variable] = value
        drawn = self._density(step.fn, value, step.place, after, loops)
        prior = self._density(step.prior, value, step.place, after, loops)
        weight = self._weighted(torch.ones_like(drawn), step.place, after, loops)
        for kind, term in (("log_q", drawn * weight), ("log_p", prior * weight)):
            after = after.with_term(kind, term)
        return after.with_term("ratio", drawn - prior).with_term("weight", weight)

    def _density(self, fn: Fn, value: Tensor, place: Place, worlds: Worlds, loops: dict[str, int]) -> Tensor:
        """The log density of a site with the masks of its distribution, ``(worlds, plates, plates)``."""
        shape = (*self._shape(place, worlds), *fn.event)
        log_prob = distribution(FAMILIES[fn.family], self._arguments(fn, shape, worlds, loops)).log_prob(value)
        log_prob = log_prob.expand(shape)
        if fn.elements_mask:
            log_prob = log_prob * self._evaluate(fn.elements_mask, worlds, loops)
        log_prob = log_prob.sum(tuple(range(3, 3 + len(fn.event)))) if fn.event else log_prob
        return log_prob * self._evaluate(fn.mask, worlds, loops) if fn.mask else log_prob

    def _weighted(self, term: Tensor, place: Place, worlds: Worlds, loops: dict[str, int]) -> Tensor:
        """A term with the scales and the mask around its site."""
        if place.mask:
            term = term * self._evaluate(place.mask, worlds, loops)
        return term * place.scale * (1.0 if self._by_slice else self._plates_scale(place.plates))

    def _plates_scale(self, names: Iterable[str]) -> float:
        plates = [self._plates[name] for name in names]
        return math.prod(plate.size / plate.subsample for plate in plates if plate.subsample)

    def _arguments(self, fn: Fn, shape: Sequence[int], worlds: Worlds, loops: dict[str, int]) -> list[Tensor]:
        found = [self._evaluate(text, worlds, loops) for text in fn.arguments]
        wide = FAMILIES[fn.family].wide
        return [each.expand(*shape, *(each.shape[-1:] if wide else ())) for each in found]

    def _shape(self, place: Place, worlds: Worlds) -> tuple[int, int, int]:
        sizes = {-1: 1, -2: 1}
        for name in place.plates:
            plate = self._plates[name]
            sizes[plate.dim] = plate.subsample or plate.size
        return len(worlds.log_prob), sizes[-2], sizes[-1]

    def _evaluate(self, text: str, worlds: Worlds, loops: dict[str, int]) -> Tensor:
        names: dict[str, Any] = {"torch": torch, "total": total, **self._parameters, **worlds.values, **loops}
        return torch.as_tensor(eval(text, names))  # a text of this package's own programs

    def _outcome(self, worlds: Worlds) -> Outcomes:
        def added(*kinds: str) -> Tensor:
            terms = [term for kind, term in worlds.terms if kind in kinds]
            if self._by_slice:
                return sum(terms[1:], terms[0]).flatten(1)
            return sum((term.flatten(1).sum(1) for term in terms), torch.zeros(len(worlds.log_prob))).unsqueeze(1)

        ratios, weights = ([term for kind, term in worlds.terms if kind == name] for name in ("ratio", "weight"))
        return Outcomes(
            worlds.log_prob,
            worlds.log_shared,
            worlds.group,
            added("discounted"),
            added("log_p", "reward"),
            added("log_q"),
            tuple(zip(ratios, weights, strict=True)),
            self._plates_scale(self._plates) if self._by_slice else 1.0,
        )


def total(value: Tensor) -> Tensor:
    """The sum over plates of a value without an event; each world has its own."""
    return value.sum((1, 2), keepdim=True)
