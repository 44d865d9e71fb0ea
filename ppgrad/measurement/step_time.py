"""What one gradient costs in training."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from ppgrad.core.generators import other_draws
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.measurement.gradient import one_gradient
from ppgrad.objectives import Objective

_ROUNDS = 15
"""How many gradients of each objective are timed, at most."""

_FEWEST = 3

_SECONDS = 1.0
"""Wall time after which no further round begins."""


def seconds_per_step(objectives: Mapping[str, Objective], prepare: Callable[[Objective], Prepared]) -> dict[str, float]:
    """Wall time for one gradient alone, in seconds: medians of rounds in which each objective has one turn.

    A turn is what a step of training takes beside the optimizer's: the program is looked up, run and differentiated.
    Calibrations are left out, which training makes once in 100 steps. The generators are left as they were found.

    Args:
        objectives: by label.
        prepare: of an objective, its prepared program.
    """
    taken: dict[str, list[float]] = {label: [] for label in objectives}
    with other_draws():
        memories = {label: each.recalled(prepare(each)) for label, each in objectives.items()}
        for label, objective in objectives.items():  # compiles, and fills caches
            one_gradient(objective, prepare(objective), memories[label])
        begin = time.perf_counter()
        for turn in range(_ROUNDS):
            if turn >= _FEWEST and time.perf_counter() - begin > _SECONDS:
                break
            for label, objective in objectives.items():
                start = time.perf_counter()
                one_gradient(objective, prepare(objective), memories[label])
                taken[label].append(time.perf_counter() - start)
    return {label: statistics.median(seconds) for label, seconds in taken.items()}
