"""What an objective requires of a program and of the estimators that serve its sites."""

from __future__ import annotations

from collections.abc import Sequence

from ppgrad.core import InvalidProgram, Unsupported
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.record import Record
from ppgrad.estimators import ScoreFunction


def needs_guide(objective: object, program: Program) -> None:
    """Raise if the program has no guide."""
    if program.guide is None:
        name = type(objective).__name__
        raise InvalidProgram(f"{name} needs a guide. Pass model and guide, or use ExpectedReturn for one program.")


def check_only_scores(records: Sequence[Record], objective: str, instead: str) -> None:
    """Raise if a site has another estimator than ``ScoreFunction()``, without a baseline."""
    for entry in (entry for record in records for entry in record.entries):
        if entry.estimator is not None and entry.estimator != ScoreFunction():
            raise Unsupported(
                f"{entry.estimator!r} cannot serve site '{entry.name}': {objective} is a baseline of its own for "
                f"ScoreFunction().\nWrite {objective} without an estimator for it, or {instead}."
            )


def check_nothing_is_summed_over(record: Record, objective: str) -> None:
    """Raise if a site is summed over: the objective is no sum over its values."""
    for entry in record.entries:
        if entry.is_summed_over:
            raise Unsupported(
                f"{type(entry.estimator).__name__} cannot serve site '{entry.name}': {objective} is no sum over the "
                f"values of a site.\nChoose ScoreFunction(VIMCO()), LocalExpectation() or DisARM() for it: "
                f"sites={{'{entry.name}': ScoreFunction(VIMCO())}}."
            )
