"""Many gradients against one.

``measure, draws`` is what drawing the replicates took: the target is for it. ``measure`` is the whole call, with the
exact reference and the statistics. One gradient is ``loss_and_grads``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import ppgrad
from benchmarks.models import load
from benchmarks.programs.rollout import ESTIMATORS
from benchmarks.rollouts import CATEGORICAL, EPISODES, GAUSSIAN
from benchmarks.timing import Contender, Race, fixed, in_process
from benchmarks.ways import accumulating

REPLICATES = 1000
MANY = 100_000
SECONDS = 10.0
"""What "in seconds" allows."""

WHOLE = "ppgrad.measure"
DRAWS = "ppgrad.measure, draws"


def races(quick: bool) -> Iterator[Race]:
    given = load("gaussian_policy").problem()
    for name, estimator, particles in (
        ("score", ppgrad.ScoreFunction(), 1),
        ("score+loo", ppgrad.ScoreFunction(ppgrad.LeaveOneOut()), 2),
        ("pathwise", ppgrad.Pathwise(), 1),
    ):
        objective = given.objective(estimator, num_particles=particles)
        yield _against_one(f"gaussian_policy, {name}", objective, given.model, given.args, 5.0)
    for kind, name in ((CATEGORICAL, "score+loo"), (GAUSSIAN, "score+loo"), (GAUSSIAN, "pathwise")):
        for episodes in (1, EPISODES) if name == "pathwise" else (EPISODES,):
            objective = ppgrad.ExpectedReturn(ESTIMATORS[name]())
            args = (kind.policy(), kind.start(episodes), 20)
            title = f"MLP policy, {kind.name}, {name}, 20 steps of {episodes} episode{'s' if episodes > 1 else ''}"
            yield _against_one(title, objective, kind.program, args, 15.0)
    given = load("quadratic").problem()
    objective = ppgrad.ExpectedReturn(ppgrad.ScoreFunction())
    yield Race(
        f"{MANY:,} replicates of quadratic, score",
        _measured(objective, given.model, given.args, MANY),
        [
            Contender(f"{SECONDS:g} seconds", lambda: fixed(SECONDS), targets={WHOLE: 1.0, DRAWS: 1.0}),
            Contender(
                f"one gradient × {MANY:,}", lambda: accumulating(objective, given.model, None, *given.args), MANY
            ),
        ],
        itself=True,
    )


def _against_one(program: str, objective: Any, model: Any, args: tuple[Any, ...], target: float) -> Race:
    return Race(
        f"{REPLICATES:,} replicates of {program}",
        _measured(objective, model, args, REPLICATES),
        [
            Contender(
                "one gradient",
                lambda: accumulating(objective, model, None, *args),
                targets={DRAWS: target},
            )
        ],
        itself=True,
    )


def _measured(objective: Any, model: Any, args: tuple[Any, ...], replicates: int) -> list[Contender]:
    measure = functools.partial(ppgrad.measure, objective, model, args=args, replicates=replicates)

    def draws(runs: int) -> float:
        return sum(measure().seconds * replicates for _ in range(runs))

    return [Contender(WHOLE, lambda: in_process(measure)), Contender(DRAWS, lambda: draws)]
