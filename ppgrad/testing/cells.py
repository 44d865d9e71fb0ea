"""The product of estimators, objectives, shapes of programs and modes, each cell with what is true of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeVar

from ppgrad.core import Estimator
from ppgrad.testing.conformance import estimator_examples
from ppgrad.testing.programs.data import Branch, Draw, Program, walk
from ppgrad.testing.programs.expectations import Exact, Goal, exact_gradient, goals
from ppgrad.testing.programs.interpreter import TooLarge
from ppgrad.testing.programs.shapes import KINDS, SHAPES
from ppgrad.testing.serving import families, glob_of, goal_under
from ppgrad.testing.trials import Trial, Verdict, tried

T = TypeVar("T")

REPLICATES = {"vmap": 2000, "particles": 1000, "compiled": 2000, "loop": 60}
"""Of a first look; it says which bias it would have found."""

MORE = {"vmap": 40_000, "particles": 20_000, "compiled": 40_000, "loop": 60}
"""The most that are taken where that bias is large."""

_ROUGH = 5e-3


@dataclass(frozen=True)
class Cell:
    """An estimator's example, an objective, a shape of program; the rest of a trial follows from them.

    Which options the objective has, which family the site is of and how the lanes are run goes round from cell to cell.
    """

    estimator: Estimator
    objective: str
    shape: str

    def __str__(self) -> str:
        return f"{self.estimator!r} × {self.objective} × {self.shape}"

    @cached_property
    def goal(self) -> Goal:
        goal = _turn([goal for goal in goals() if goal.name == self.objective], str(self), "goal")
        return goal_under(goal, [self.estimator])

    @property
    def mode(self) -> str:
        return _turn(("vmap",) * 5 + ("particles",) * 5 + ("compiled", "loop"), str(self), "mode")

    @cached_property
    def problem(self) -> tuple[Program, str, Exact] | None:
        """A program of the shape, the family of its sites, and its exact gradient; None where none is known."""
        served = families(self.estimator)
        first = served.index(_turn(served, str(self), "family"))
        for family in served[first:] + served[:first]:
            program = SHAPES[self.shape](KINDS[family])
            exact = _exact(self.shape, family, self.goal)
            if exact is not None:
                return program, family, exact
        return None

    def verdict(self, failure_rate: float, thorough: bool = False) -> Verdict:
        """What is true of the cell; ``thorough`` for more replicates where few would overlook a large bias."""
        if self.problem is None:
            return Verdict("fails", message="No exact gradient is known.")
        program, family, exact = self.problem
        globs = {glob_of(step) for step in walk(program.steps) if isinstance(step, Draw) and step.fn.family == family}
        trial = Trial(program, self.goal, dict.fromkeys(globs, self.estimator), self.mode)
        by_itself = any(isinstance(step, Branch) for step in walk(program.steps))
        mode = "loop" if by_itself else self.mode
        return tried(trial, exact, REPLICATES[mode], failure_rate, MORE[mode] if thorough else None)


def all_cells() -> list[Cell]:
    """Every example of every estimator and baseline, under every objective, on every shape."""
    names = dict.fromkeys(goal.name for goal in goals())
    return [Cell(e, name, shape) for e in estimator_examples() for name in names for shape in SHAPES]


def some_cells(cells: Sequence[Cell], count: int, seed: int) -> list[Cell]:
    """A share of the cells, another one for each seed, in which each estimator, objective and shape is."""
    return sorted(cells, key=lambda cell: _number(str(cell), str(seed)))[:count]


ROW = ("estimator", "objective", "shape", "family", "mode", "verdict", "smallest_bias", "p_value")


def row(cell: Cell, verdict: Verdict) -> tuple[Any, ...]:
    """A line of the table of cells."""
    family = "" if cell.problem is None else cell.problem[1]
    known = verdict.word in ("conforms", "biased")
    smallest, found = (f"{verdict.smallest_bias:.3g}", f"{verdict.found:.2g}") if known else ("", "")
    return repr(cell.estimator), str(cell.goal), cell.shape, family, cell.mode, verdict.word, smallest, found


def counts(rows: Iterable[Sequence[str]], column: str = "estimator") -> dict[str, Counter[str]]:
    """For each value of a column how many cells have which verdict."""
    found: dict[str, Counter[str]] = {}
    for line in rows:
        found.setdefault(line[ROW.index(column)], Counter())[line[ROW.index("verdict")]] += 1
    return found


@cache
def _exact(shape: str, family: str, goal: Goal) -> Exact | None:
    try:
        exact = exact_gradient(SHAPES[shape](KINDS[family]), goal)
    except TooLarge:
        return None
    scale = max(float(each.abs().max()) for each in exact.gradient.values())
    error = max(float(each.max()) for each in exact.error.values())
    return exact if error <= _ROUGH * scale else None


def _turn(choices: Sequence[T], *what: str) -> T:
    return choices[_number(*what) % len(choices)]


def _number(*what: str) -> int:
    return int.from_bytes(hashlib.sha256(" ".join(what).encode()).digest()[:8], "big")
