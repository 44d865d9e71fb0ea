"""A policy of one hidden layer of 64 tanh units, 64 episodes, 10 to 1,000 steps.

The score function has the reward to go and leave-one-out over the episodes. Pyro has no leave-one-out: its rows
are of the same gradient with more variance. Pyro's ELBOs race up to 100 steps, `TraceEnum_ELBO` up to 50, JAX and
the compiled way up to 50.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.programs.rollout import rollout_race, steps_race
from benchmarks.rollouts import CATEGORICAL, GAUSSIAN
from benchmarks.timing import Race

CASES = ((CATEGORICAL, "score+loo"), (GAUSSIAN, "score+loo"), (GAUSSIAN, "pathwise"))


def races(quick: bool) -> Iterator[Race]:
    for steps in (10, 50) if quick else (10, 50, 100, 200, 1000):
        for kind, estimator in CASES:
            pyro = [] if steps > 100 else ["Pyro Trace_ELBO", "Pyro TraceGraph_ELBO", "Pyro TraceEnum_ELBO"]
            if steps > (10 if quick else 50):
                pyro = [name for name in pyro if name != "Pyro TraceEnum_ELBO"]
            compiled = steps <= 50 and not quick
            yield rollout_race("MLP policy", kind, estimator, steps, pyro=pyro, compiled=compiled, jax=steps <= 50)
    for kind, estimator in CASES:
        yield steps_race("MLP policy", kind, estimator, *((50, 100) if quick else (100, 1000)))
