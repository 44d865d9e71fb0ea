"""Trials drawn at random: a program, an objective, an estimator at each site, and how the lanes are run."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ppgrad.core import Calibrates, Estimator
from ppgrad.estimators import ScoreFunction
from ppgrad.testing.programs.data import Branch, Draw, Program, walk
from ppgrad.testing.programs.drawing import drawn
from ppgrad.testing.programs.expectations import Exact, Goal, exact_gradient, goals
from ppgrad.testing.programs.interpreter import TooLarge
from ppgrad.testing.programs.printing import has_fixed_priors
from ppgrad.testing.programs.shrinking import shrunk
from ppgrad.testing.serving import glob_of, goal_under, serving
from ppgrad.testing.trials import MODES, Trial, Verdict, tried

ROUGH = 1e-3
"""Programs whose exact gradient is not known to this share of its largest component are not tried."""

_MODES = ("vmap",) * 5 + ("particles",) * 5 + ("compiled", "loop")
_CHOICES = 6


@dataclass(frozen=True)
class Found:
    """A trial that failed, as small as it could be made."""

    trial: Trial
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.verdict.message}\n\n{self.trial.script}"


def conforming(source: random.Random, failure_rate: float) -> Trial | Found:
    """Draw a program until it can be summed over, and estimators until they serve it; and try them.

    Args:
        source: of what is drawn.
        failure_rate: the chance that a correct estimator fails.
    """
    while True:
        program = drawn(source)
        goal = source.choice([goal for goal in goals() if goal.name != "KLRegularized" or has_fixed_priors(program)])
        exact = known(program, goal)
        if exact is None:
            continue
        for _ in range(_CHOICES):
            mode = source.choice(_MODES)
            sites = _sites(program, goal, mode, source)
            trial = Trial(program, goal_under(goal, sites.values()), sites, mode)
            against = exact if trial.goal is goal else known(program, trial.goal)
            if against is None:
                continue
            verdict = tried(trial, against, replicates_of(trial), failure_rate)
            if verdict.word == "fails":
                return smallest(trial, failure_rate)
            if verdict.word == "conforms":
                return trial


def known(program: Program, goal: Goal) -> Exact | None:
    """The exact gradient, where it is known well enough."""
    try:
        exact = exact_gradient(program, goal)
    except TooLarge:
        return None
    scale = max(float(each.abs().max()) for each in exact.gradient.values())
    error = max(float(each.max()) for each in exact.error.values())
    return exact if 1e-3 < scale < 100 and error <= ROUGH * scale else None


def replicates_of(trial: Trial) -> int:
    """How many replicates a first look takes: fewer where each runs by itself."""
    return 30 if _by_itself(trial.program, trial.mode) else 500


def _by_itself(program: Program, mode: str) -> bool:
    """Whether every lane runs by itself."""
    return mode == "loop" or any(isinstance(step, Branch) for step in walk(program.steps))


def smallest(trial: Trial, failure_rate: float) -> Found:
    """The smallest trial like one that failed, that fails."""
    original = next(goal for goal in goals() if str(goal) == str(trial.goal))

    def verdict(smaller: Trial) -> Verdict:
        smaller = replace(smaller, goal=goal_under(original, smaller.sites.values()))
        exact = known(smaller.program, smaller.goal)
        if exact is None:
            return Verdict("conforms")
        return tried(smaller, exact, replicates_of(smaller), failure_rate)

    def fails(smaller: Trial) -> bool:
        return verdict(smaller).word == "fails"

    trial = replace(trial, program=shrunk(trial.program, lambda p: fails(_with_program(trial, p))))
    trial = _with_program(trial, trial.program)
    for glob in trial.sites:
        simpler = replace(trial, sites={**trial.sites, glob: ScoreFunction()})
        trial = simpler if fails(simpler) else trial
    simpler = replace(trial, mode="vmap")
    trial = simpler if fails(simpler) else trial
    return Found(trial, verdict(trial))


def _with_program(trial: Trial, program: Program) -> Trial:
    globs = {glob_of(step) for step in walk(program.steps) if isinstance(step, Draw)}
    return replace(trial, program=program, sites={g: e for g, e in trial.sites.items() if g in globs})


def _sites(program: Program, goal: Goal, mode: str, source: random.Random) -> dict[str, Estimator]:
    """An estimator for each site; none that needs hundreds of runs to calibrate where each of them runs by itself."""
    found = {}
    for step in walk(program.steps):
        if isinstance(step, Draw):
            usable = serving(step.fn.family, goal.name, MODES[mode].get("num_particles", 1))
            found[glob_of(step)] = source.choice(
                [e for e in usable if not (_by_itself(program, mode) and _calibrates(e))]
            )
    return found


def _calibrates(estimator: Estimator) -> bool:
    """Whether an estimator, or its baseline, is fitted to held-out runs."""
    return isinstance(estimator, Calibrates) and bool(estimator.gates)
