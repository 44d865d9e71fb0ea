"""Runs that are the elements of a plate, such as the episodes of a rollout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ppgrad.core import Draw, Estimator, InvalidAssignment, InvalidProgram, Plate, Plates, Signal, Unsupported
from ppgrad.engine.running.record import Record, Served
from ppgrad.objectives._shared.lanes import lanes_of


def plate_called(name: str, records: Sequence[Record]) -> Plate:
    """The plate of that name, alike in all runs.

    Raises:
        InvalidAssignment: there is none.
        InvalidProgram: its size changes from run to run.
    """
    plates = {plate for record in records for entry in record.entries for plate in entry.plates}
    found = [plate for plate in plates if plate.name == name]
    if not found:
        there = ", ".join(sorted({plate.name for plate in plates})) or "none"
        raise InvalidAssignment(f"over={name!r} names no plate of the program. Its plates: {there}.")
    if len(found) > 1:
        raise InvalidProgram(f"Plate '{name}' differs between runs or sites: {found[0]}, {found[1]}. Make it one.")
    return found[0]


def costs_of_elements(records: Sequence[Record], plate: Plate) -> Tensor:
    """What each element of a plate costs in each run, ``(lanes, n)``; a subsampled plate has no scale here.

    Raises:
        InvalidProgram: something costs outside of the plate.
    """
    return torch.cat([_of_record(record, plate) for record in records])


def _of_record(record: Record, plate: Plate) -> Tensor:
    total: Tensor | None = None
    for entry in record.entries:
        if entry.cost is None:
            continue
        if plate not in entry.plates:
            raise InvalidProgram(
                f"What site '{entry.name}' costs belongs to no element of plate '{plate.name}': it lies outside. "
                "Move it into the plate, or leave out over=."
            )
        apart = entry.cost.movedim(plate.dim, 2).reshape(entry.cost.shape[0], 1, entry.cost.shape[plate.dim], -1)
        own = apart.sum(-1).expand(-1, 1, plate.size)
        total = own if total is None else total + own
    if total is None:
        raise InvalidProgram(f"Nothing costs anything in plate '{plate.name}'.")
    return total.squeeze(1) / record.subsampling.get(plate.name, 1.0)


def is_of_one(record: Record, place: int, plate: Plate) -> bool:
    """Whether a draw acts on the costs of its own element alone."""
    return plate in record.entries[place].plates and plate not in record.dependence.coupled(place)


class SignalsOfElements:
    """The numbers that the elements of a plate share, as signals of their draws.

    A draw that acts on one element alone is charged with the credit of that element, any other with all.

    Args:
        plate: whose elements they are.
        credit: what each element is charged with, ``(particles, runs × n)``.
        without: what that is expected to be without it, the same shape; or None.
        joint: the number itself, ``(particles,)``.
    """

    def __init__(self, plate: Plate, credit: Tensor, without: Tensor | None, joint: Tensor):
        self._plate = plate
        everything = joint.unsqueeze(-1).expand_as(credit)
        self._own = self._by_lane(credit), self._by_lane(_others(credit))
        self._whole = self._by_lane(everything)[:, :1], self._by_lane(_others(everything))[:, :1]
        self._without = None if without is None else self._by_lane(without)

    def served(self, records: Sequence[Record]) -> list[Served]:
        """Each draw that has a surrogate, with its signal."""
        served: list[Served] = []
        start = 0
        for record in records:
            lanes = slice(start, start := start + lanes_of(record))
            places = {entry.name: place for place, entry in enumerate(record.entries) if entry.draw is not None}
            for draw, signal, estimator in record.served():
                _check_serves(draw, signal, estimator, self._plate)
                own = is_of_one(record, places[draw.name], self._plate)
                served.append((draw, self._signal(draw, own, lanes), estimator))
        return served

    def _signal(self, draw: Draw, own: bool, lanes: slice) -> Signal:
        def shaped(values: Tensor) -> Tensor:
            shape = [1] * draw.log_prob.dim()
            shape[0] = len(values[lanes])
            if own:
                shape[self._plate.dim] = self._plate.size
            return values[lanes].reshape(shape)

        credit, others = map(shaped, self._own if own else self._whole)
        plates: Plates = frozenset({self._plate}) if own else frozenset()
        without = shaped(self._without) if own and self._without is not None else None
        return Signal({plates: credit}, draw.plates, others=others, without=without)

    def _by_lane(self, values: Tensor) -> Tensor:
        return values.reshape(-1, self._plate.size)


def _others(credit: Tensor) -> Tensor:
    """For each particle the mean credit of the others, in the shape of ``credit``; zero for a single one."""
    means, particles = credit.mean(-1, keepdim=True), len(credit)
    others = (means.sum(0) - means) / (particles - 1) if particles > 1 else torch.zeros_like(means)
    return others.expand_as(credit)


def _check_serves(draw: Draw, signal: Signal, estimator: Estimator, plate: Plate) -> None:
    if signal.has_alternatives:
        raise Unsupported(
            f"{type(estimator).__name__} cannot serve site '{draw.name}' where over={plate.name!r}: it runs the "
            f"program again.\nChoose ScoreFunction() or Pathwise() for it: sites={{'{draw.name}': ScoreFunction()}}."
        )
    if getattr(getattr(estimator, "baseline", None), "over", None) is not None:
        raise Unsupported(
            f"The baseline of site '{draw.name}' compares the elements of a plate, and over={plate.name!r} gives them "
            "one number: what the others are charged with depends on this draw. Write ScoreFunction() or "
            "ScoreFunction(VIMCO())."
        )
