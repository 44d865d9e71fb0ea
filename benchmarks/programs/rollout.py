"""Races of rollouts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import ppgrad
from benchmarks.environments import JAX
from benchmarks.rivals import by_hand
from benchmarks.rivals.pyro_rollouts import ELBOS, PyroRollout
from benchmarks.rollouts import EPISODES, HIDDEN, SCALAR, STATE, Kind
from benchmarks.timing import Burst, Contender, Race
from benchmarks.ways import COMPILED, EAGER, accumulating, backward, ways

EAGER_TARGETS = {50: 1.3}
"""By the number of steps; nothing is asked for of the others."""

COMPILED_TARGET = 1.5
"""For the scalar policy; nothing is asked for of the others."""

LINEAR_TARGET = 1.1
"""The time of ten times as many steps over ten times the time: linear, but for a tenth."""

ESTIMATORS: dict[str, Callable[[], ppgrad.Estimator]] = {
    "score": ppgrad.ScoreFunction,
    "score+loo": lambda: ppgrad.ScoreFunction(ppgrad.LeaveOneOut(over="episodes")),
    "pathwise": ppgrad.Pathwise,
}


def rollout_race(
    program: str,
    kind: Kind,
    estimator: str,
    steps: int,
    *,
    pyro: Sequence[str] = tuple(ELBOS),
    compiled: bool = True,
    jax: bool = True,
) -> Race:
    """One gradient of a rollout, by ppgrad and by its rivals.

    Args:
        program: first words of what the table calls it.
        kind: of rollout.
        estimator: one of `ESTIMATORS`.
        steps: of each episode.
        pyro: those of Pyro's ELBOs that race.
        compiled, jax: whether these do.
    """
    args = (kind.policy(), kind.start(EPISODES), steps)
    return Race(
        _title(program, kind, estimator, steps),
        ways(
            functools.partial(ppgrad.ExpectedReturn, ESTIMATORS[estimator]()),
            lambda objective: accumulating(objective, kind.program, None, *args),
            compiled,
        ),
        [
            *_by_hand(kind, estimator, args),
            *(_pyro(name, kind, estimator, args) for name in pyro),
            *([_jax(kind, estimator, steps)] if jax else []),
        ],
    )


def steps_race(program: str, kind: Kind, estimator: str, few: int, many: int) -> Race:
    """Many steps against a multiple of few: whether the cost is linear in steps."""

    def burst(steps: int) -> Burst:
        objective = ppgrad.ExpectedReturn(ESTIMATORS[estimator]())
        return accumulating(objective, kind.program, None, kind.policy(), kind.start(EPISODES), steps)

    times = many / few
    rival = Contender(f"ppgrad at {few} steps × {times:g}", lambda: burst(few), times, {EAGER: LINEAR_TARGET})
    title = f"{_title(program, kind, estimator, many)}, linear in steps"
    return Race(title, [Contender(EAGER, lambda: burst(many))], [rival], itself=True)


def _title(program: str, kind: Kind, estimator: str, steps: int) -> str:
    return f"{program}, {f'{kind.name}, ' if program != f'{kind.name} policy' else ''}{estimator}, {steps:,} steps"


def _by_hand(kind: Kind, estimator: str, args: tuple[Any, ...]) -> list[Contender]:
    leave_one_out = estimator == "score+loo"
    targets = {EAGER: EAGER_TARGETS[args[-1]]} if args[-1] in EAGER_TARGETS else {}
    if estimator == "pathwise":
        plain = functools.partial(by_hand.pathwise, kind, *args)
    else:
        plain = functools.partial(by_hand.score_function, kind, *args, leave_one_out)
    stacked = functools.partial(by_hand.stacked_score_function, kind, *args, leave_one_out)
    text_book = Contender("torch by hand", lambda: backward(plain, args[0]), targets=targets)
    if estimator == "pathwise":
        return [text_book]
    return [text_book, Contender("torch by hand, stacked", lambda: backward(stacked, args[0]), against=(EAGER,))]


def _pyro(name: str, kind: Kind, estimator: str, args: tuple[Any, ...]) -> Contender:
    rollout = PyroRollout(kind, score_function=estimator != "pathwise")
    return Contender(name, lambda: accumulating(ELBOS[name](), rollout.model, rollout.guide, *args), against=(EAGER,))


def _jax(kind: Kind, estimator: str, steps: int) -> Contender:
    settings = {
        "kind": kind.name,
        "estimator": estimator.removesuffix("+loo"),
        "leave_one_out": estimator.endswith("+loo"),
        "steps": steps,
        "episodes": EPISODES,
        "hidden": HIDDEN,
        "dimension": STATE,
    }
    targets = {COMPILED: COMPILED_TARGET} if kind is SCALAR else {}
    return Contender("JAX scan + jit", lambda: JAX.burst("rollout", **settings), targets=targets)
