"""The product of estimators, objectives and shapes of programs: a share of it here, all of it by `make proof`."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest

import ppgrad
from ppgrad import Objective
from ppgrad.testing import SUITE_FAILURE_RATE, estimator_examples
from ppgrad.testing.cells import ROW, all_cells, some_cells
from ppgrad.testing.programs.expectations import goals
from tools.proof import TABLE, read

CELLS = all_cells()
SHARE = 160
BLOCKS = 8
FAILURE_RATE = SUITE_FAILURE_RATE / (10 * len(CELLS))
SOME = some_cells(CELLS, SHARE, 0)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_each_cell_conforms_refuses_or_is_biased_as_it_says(block: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "ppgrad")
    for cell in SOME[block::BLOCKS]:
        verdict = cell.verdict(FAILURE_RATE)
        assert verdict.word != "fails", f"{cell} ({cell.goal}, {cell.mode}): {verdict.message}"


def test_every_objective_has_a_definition() -> None:
    public = {
        name
        for name in ppgrad.__all__
        if inspect.isclass(each := getattr(ppgrad, name)) and issubclass(each, Objective) and each is not Objective
    }
    assert public == {goal.name for goal in goals()}


def test_the_product_has_every_example() -> None:
    assert {repr(cell.estimator) for cell in CELLS} == set(map(repr, estimator_examples()))


@pytest.mark.skipif(not Path(TABLE).exists(), reason="make proof writes the table")
def test_no_cell_of_the_published_table_fails() -> None:
    rows = read()
    assert rows
    assert {line[ROW.index("verdict")] for line in rows} <= {"conforms", "refuses", "biased"}
