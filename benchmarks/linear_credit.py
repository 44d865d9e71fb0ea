"""The cost of a program of 200 sequential sites, in units of one of 100.

Times one gradient of a program of T Bernoulli sites in a plate of 64 episodes, each site fed by the
state that the ones before have left, with a reward at every step: T = 100 and 200, the sizes and the
rivals (Pyro's ELBOs) interleaved in one run, on one thread. Prints the median times and the ratio of
200 to 100. Target for ppgrad's rows: at most 2.2.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from rich.console import Console
from rich.table import Table

import ppgrad

SIZES = (100, 200)
EPISODES = 64
RUNS = 15
TRACE_GRAPH_RUNS = 2  # seconds each


def rollout(steps: int) -> None:
    bias = pyro.param("bias", torch.tensor(0.1))
    state = torch.zeros(EPISODES)
    with pyro.plate("episodes", EPISODES):
        for t in range(steps):
            action = ppgrad.policy(f"a_{t}", dist.Bernoulli(logits=bias - state))
            state = 0.9 * state + 0.1 * action
            ppgrad.reward(f"r_{t}", state)


def guide(steps: int) -> None:
    bias = pyro.param("bias", torch.tensor(0.1))
    state = torch.zeros(EPISODES)
    with pyro.plate("episodes", EPISODES):
        for t in range(steps):
            action = pyro.sample(f"a_{t}", dist.Bernoulli(logits=bias - state))
            state = 0.9 * state + 0.1 * action


def seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def main() -> None:
    torch.set_num_threads(1)
    expected_return = ppgrad.ExpectedReturn(ppgrad.ScoreFunction())
    bound = ppgrad.ELBO(ppgrad.ScoreFunction())
    rows: dict[str, tuple[Callable[[int], object], int]] = {
        "ppgrad ExpectedReturn": (lambda t: expected_return.loss_and_grads(rollout, None, t), RUNS),
        "ppgrad ELBO": (lambda t: bound.loss_and_grads(rollout, guide, t), RUNS),
        "Pyro Trace_ELBO": (lambda t: Trace_ELBO().loss_and_grads(rollout, guide, t), RUNS),
        "Pyro TraceGraph_ELBO": (lambda t: TraceGraph_ELBO().loss_and_grads(rollout, guide, t), TRACE_GRAPH_RUNS),
    }
    times: dict[tuple[str, int], list[float]] = {(name, size): [] for name in rows for size in SIZES}
    for step, count in rows.values():
        for size in SIZES if count == RUNS else ():
            step(size)
    for i in range(RUNS):
        for name, (step, count) in rows.items():
            for size in SIZES if i < count else ():
                times[name, size].append(seconds(lambda step=step, size=size: step(size)))
    table = Table("", title="One gradient, median of interleaved runs (target 2.2)")
    for column in ("runs", *(f"{size} sites, ms" for size in SIZES), "ratio"):
        table.add_column(column, justify="right")
    for name, (_, count) in rows.items():
        medians = [statistics.median(times[name, size]) for size in SIZES]
        table.add_row(name, str(count), *(f"{1e3 * m:.1f}" for m in medians), f"{medians[1] / medians[0]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
