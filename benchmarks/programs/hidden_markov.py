"""One gradient of models/hidden_markov.py, 50 steps of 4 states: the states summed out, as Pyro does it.

It is compiled where the suite is not ``--quick``: there are 50 steps to trace, which takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyro.infer import TraceEnum_ELBO

import ppgrad
from benchmarks.models import load
from benchmarks.timing import Contender, Race
from benchmarks.ways import COMPILED, EAGER, accumulating, ways

STEPS, STATES = 50, 4


def races(quick: bool) -> Iterator[Race]:
    given = load("hidden_markov").problem(steps=STEPS, states=STATES)
    yield Race(
        f"hidden Markov model, {STEPS} steps of {STATES} states",
        ways(
            ppgrad.ELBO,
            lambda objective: accumulating(objective, given.model, given.guide, *given.args),
            compiled=not quick,
        ),
        [
            Contender(
                "Pyro TraceEnum_ELBO",
                lambda: accumulating(TraceEnum_ELBO(max_plate_nesting=0), given.model, given.guide, *given.args),
                targets={EAGER: 1.2, COMPILED: 0.3},
            ),
        ],
    )
