"""The cost of a program of 200 sequential sites, in units of one of 100.

Times one gradient of a program of T sequential Bernoulli sites with a reward each, in a plate of 64
episodes, for T = 100 and 200, interleaved, with Pyro's ELBOs as rivals in the same run. Prints the
median times and the ratio of 200 to 100. Target: at most 2.2.
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


def rollout(steps: int) -> None:
    logit = pyro.param("logit", torch.tensor(0.1))
    with pyro.plate("episodes", EPISODES):
        for t in range(steps):
            action = ppgrad.policy(f"a_{t}", dist.Bernoulli(logits=logit))
            ppgrad.reward(f"r_{t}", action)


def guide(steps: int) -> None:
    logit = pyro.param("logit", torch.tensor(0.1))
    with pyro.plate("episodes", EPISODES):
        for t in range(steps):
            pyro.sample(f"a_{t}", dist.Bernoulli(logits=logit))


def seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def main() -> None:
    expected_return = ppgrad.ExpectedReturn(ppgrad.ScoreFunction())
    bound = ppgrad.ELBO(ppgrad.ScoreFunction())
    rows: dict[str, tuple[Callable[[int], object], int]] = {
        "ppgrad ExpectedReturn": (lambda t: expected_return.loss_and_grads(rollout, None, t), 15),
        "ppgrad ELBO": (lambda t: bound.loss_and_grads(rollout, guide, t), 15),
        "Pyro Trace_ELBO": (lambda t: Trace_ELBO().loss_and_grads(rollout, guide, t), 15),
        "Pyro TraceGraph_ELBO": (lambda t: TraceGraph_ELBO().loss_and_grads(rollout, guide, t), 3),
    }
    times: dict[tuple[str, int], list[float]] = {(name, size): [] for name in rows for size in SIZES}
    for name, (step, _) in rows.items():
        if name != "Pyro TraceGraph_ELBO":
            for size in SIZES:
                step(size)
    for i in range(max(count for _, count in rows.values())):
        for name, (step, count) in rows.items():
            for size in SIZES:
                if i < count:
                    times[name, size].append(seconds(lambda step=step, size=size: step(size)))
    table = Table(
        "", *(f"{size} sites [ms]" for size in SIZES), "ratio", title="One gradient, median of interleaved runs"
    )
    for name in rows:
        medians = [statistics.median(times[name, size]) for size in SIZES]
        table.add_row(name, *(f"{1e3 * median:.1f}" for median in medians), f"{medians[1] / medians[0]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
