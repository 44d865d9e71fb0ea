"""Random programs, an estimator for each site, an objective and a mode: the mean is the exact gradient."""

from __future__ import annotations

import logging
import os
import random
from dataclasses import dataclass

import pytest
from torch import Tensor

from ppgrad.core import Draw, Memory, Signal
from ppgrad.estimators import ScoreFunction
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.programs.data import Let
from ppgrad.testing.programs.drawing import drawn, parts
from ppgrad.testing.programs.expectations import exact_gradient, goals
from ppgrad.testing.programs.families import FAMILIES
from ppgrad.testing.programs.shapes import KINDS, SHAPES
from ppgrad.testing.random_trials import Found, conforming, smallest
from ppgrad.testing.trials import Trial, tried

PROGRAMS = int(os.environ.get("PPGRAD_PROGRAMS", "300"))
BLOCKS = 20
FAILURE_RATE = SUITE_FAILURE_RATE / (10 * PROGRAMS)


def test_the_generator_draws_everything() -> None:
    found = {part for seed in range(300) for part in parts(drawn(random.Random(seed)))}
    wanted = {"Draw", "Observe", "Cost", "Let", "Loop", "Branch", "plate", "markov", "slices", "scale"}
    wanted |= {"mask", "mask around", "mask of elements", "event of 0", "event of 1", "event of 2"}
    wanted |= {f"plates: {plates}" for plates in ("", "n", "n, m", "s")} | set(KINDS)
    assert wanted <= found
    assert set(KINDS) <= set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_programs(block: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "ppgrad")
    for seed in range(block, PROGRAMS, BLOCKS):
        found = conforming(random.Random(seed), FAILURE_RATE)
        assert not isinstance(found, Found), f"program {seed}: {found}"


@dataclass(frozen=True)
class WrongSign(ScoreFunction):
    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return -super().surrogate(draw, signal, memory)


@dataclass(frozen=True)
class HalfOfIt(ScoreFunction):
    """A factor that is lost."""

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return 0.5 * super().surrogate(draw, signal, memory)


@pytest.mark.parametrize("planted", [WrongSign(), HalfOfIt()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("name", ["ExpectedReturn", "ELBO", "EntropicRisk"])
def test_a_planted_bias_is_found(planted: ScoreFunction, name: str) -> None:
    goal = next(goal for goal in goals() if goal.name == name)
    for shape in ("scalar", "event", "markov"):
        program = SHAPES[shape](KINDS["bernoulli"])
        verdict = tried(Trial(program, goal, {"x*": planted}, "vmap"), exact_gradient(program, goal), 4000, 1e-6)
        assert verdict.word == "fails"


def test_a_failing_program_is_made_smaller_and_printed() -> None:
    """A wrong estimator at every Bernoulli site of a program with more than that: one site and one cost are left."""
    goal = next(goal for goal in goals() if goal.name == "ExpectedReturn")
    program = SHAPES["chain"](KINDS["bernoulli"])
    found = smallest(Trial(program, goal, {"x": ScoreFunction(), "y": WrongSign()}, "particles"), 1e-6)
    assert [step.site for step in found.trial.program.steps if not isinstance(step, Let)] == ["y", "d"]
    script = str(found)
    assert "ppgrad.policy" in script
    assert "y" in found.trial.sites
