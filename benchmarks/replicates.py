"""The cost of 1,000 replicates of a gradient, in units of one.

Times one gradient and 1,000 replicates of it on ``models/gaussian_policy.py``, interleaved, on one
thread. Prints the medians and their ratio. Target: at most 15.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import ppgrad
from ppgrad.measurement import ready
from ppgrad.measurement.gradient import ascent
from ppgrad.measurement.replicates import replicate

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from gaussian_policy import problem

REPLICATES = 1000
RUNS = 15


def seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def main() -> None:
    torch.set_num_threads(1)
    given = problem()
    table = Table("", title="gaussian_policy, median of interleaved runs (target 15)")
    for column in ("1 gradient, ms", f"{REPLICATES:,} gradients, ms", "ratio"):
        table.add_column(column, justify="right")
    estimators = {
        "score": ppgrad.ScoreFunction(),
        "score+loo": ppgrad.ScoreFunction(ppgrad.LeaveOneOut()),
        "pathwise": ppgrad.Pathwise(),
    }
    for label, estimator in estimators.items():
        objective = given.objective(estimator, num_particles=2)
        prepared = ready(objective, given.model, given.guide, given.args, None)

        def one(objective=objective, prepared=prepared) -> object:
            return ascent(objective.estimate(prepared.executor).surrogate, prepared.parameters)

        def many(objective=objective, prepared=prepared) -> object:
            return replicate(objective, prepared, REPLICATES, 0, None)

        one(), many()
        pairs = [(seconds(one), seconds(many)) for _ in range(RUNS)]
        single, several = (statistics.median(times) for times in zip(*pairs, strict=True))
        table.add_row(label, f"{1e3 * single:.2f}", f"{1e3 * several:.2f}", f"{several / single:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
