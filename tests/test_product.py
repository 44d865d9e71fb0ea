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
from ppgrad.testing.programs.expectations import exact_gradient, goals
from ppgrad.testing.programs.shapes import KINDS, SHAPES
from ppgrad.testing.trials import Trial, tried
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


@pytest.mark.parametrize("shape", ["subsampled", "plate", "scalar"])
def test_samples_of_one_divergence_are_of_the_same_data(shape: str) -> None:
    """Ratios of samples of other data than each other's are no ratios of one posterior."""
    goal = next(goal for goal in goals() if goal.name == "Divergence")
    program = SHAPES[shape](KINDS["bernoulli"])
    trial = Trial(program, goal, {"x": ppgrad.ScoreFunction(ppgrad.LeaveOneOut())}, "particles")
    assert tried(trial, exact_gradient(program, goal), 4000, FAILURE_RATE).word == "conforms"


@pytest.mark.parametrize("name", ["ExpectedReturn", "KLRegularized", "ELBO"])
@pytest.mark.parametrize("seed", range(4))
def test_a_site_that_only_some_runs_have_is_named_whatever_the_first_run_is(name: str, seed: int) -> None:
    goal = next(goal for goal in goals() if goal.name == name)
    program = SHAPES["branch_with_a_site"](KINDS["bernoulli"])
    trial = Trial(program, goal, {"x": ppgrad.ScoreFunction(), "w": ppgrad.ScoreFunction()}, "vmap")
    found = ppgrad.gradient(trial.objective, trial.defined["model"], trial.defined.get("guide"), seed=seed)
    assert "a" in found


def test_a_glob_of_no_site_is_still_refused() -> None:
    goal = next(goal for goal in goals() if goal.name == "ExpectedReturn")
    program = SHAPES["branch_with_a_site"](KINDS["bernoulli"])
    trial = Trial(program, goal, {"v": ppgrad.ScoreFunction()}, "vmap")
    with pytest.raises(ppgrad.InvalidAssignment, match="glob 'v' of sites= matches no random site"):
        ppgrad.gradient(trial.objective, trial.defined["model"], seed=0)
