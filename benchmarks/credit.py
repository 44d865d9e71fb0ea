"""What credit buys: variance × seconds of a gradient against Pyro's ELBOs, on twelve programs of different shape.

A fixed time buys a variance of variance × seconds of one gradient divided by that time, so the smaller product wins.
Seconds are medians of interleaved runs of ``loss_and_grads``, with one particle and with ten (which Pyro vectorizes,
too), variances are those of all parameters together. Then seconds of a gradient of a chain by its length. What loses
stays in the table.

    python benchmarks/credit.py [--only PATTERN] [--quick] [--size 10]
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ppgrad
from benchmarks import machine
from benchmarks.programs.shapes import Programs, all_shapes, chain
from benchmarks.report import milliseconds
from benchmarks.timing import Budget, Contender, Timing, in_process, interleaved
from benchmarks.ways import EAGER

PARTICLES = (1, 10)
LENGTHS = (50, 100, 200, 400)


def of_pyro(kind: Callable[..., Any], particles: int) -> Any:
    return kind(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=2)


WAYS: Mapping[str, Callable[[int], Any]] = {
    EAGER: lambda particles: ppgrad.ELBO(num_particles=particles),
    "Trace_ELBO": functools.partial(of_pyro, Trace_ELBO),
    "TraceGraph_ELBO": functools.partial(of_pyro, TraceGraph_ELBO),
}


@dataclass(frozen=True)
class Work:
    """Of one way: the seconds of a gradient by the number of particles, NaN where it does not run.

    ``variance`` is the total one of a single particle, ``error`` its standard error.
    """

    seconds: Mapping[int, float]
    variance: float
    error: float

    def product(self, particles: int) -> float:
        return self.seconds[particles] * self.variance / particles


def step(loss: Any, programs: Programs) -> Tensor:
    """One gradient, all parameters side by side."""
    parameters = dict(pyro.get_param_store().named_parameters())
    for parameter in parameters.values():
        parameter.grad = None
    loss.loss_and_grads(*programs)
    parameters = parameters or dict(pyro.get_param_store().named_parameters())
    return torch.cat([parameters[name].grad.reshape(-1) for name in sorted(parameters)])


def timed(programs: Programs, budget: Budget, particles: int = 1) -> list[Timing]:
    """Each way in turn."""
    contenders = [
        Contender(name, lambda way=way: in_process(functools.partial(step, way(particles), programs)))
        for name, way in WAYS.items()
    ]
    return interleaved(contenders, budget)


def works(programs: Programs, budget: Budget, draws: int) -> dict[str, Work]:
    """The work of each way."""
    seconds = {particles: timed(programs, budget, particles) for particles in PARTICLES}
    found = {}
    for i, (name, way) in enumerate(WAYS.items()):
        loss = way(1)
        gradients = torch.stack([step(loss, programs) for _ in range(draws)]).double()
        squares = (gradients - gradients.mean(0)).square().sum(1) * draws / (draws - 1)
        medians = {particles: timings[i].median for particles, timings in seconds.items()}
        found[name] = Work(medians, float(squares.mean()), float(squares.std() / math.sqrt(draws)))
    return found


def table_of_work(rows: Mapping[str, Mapping[str, Work]]) -> Table:
    """One line a program and rival."""
    made = Table(title="Variance × seconds of one gradient; ratio: ppgrad's product in units of the rival's")
    made.add_column("program", no_wrap=True)
    made.add_column("rival", no_wrap=True)
    for column in ("variance", "rival's"):
        made.add_column(column, justify="right")
    for particles in PARTICLES:
        of = f"{particles} particle{'s' if particles > 1 else ''}"
        for column in (f"{of}: ms", "rival's", "ratio"):
            made.add_column(column, justify="right")
        made.add_column("ahead")
    for program, found in rows.items():
        ours, label = found[EAGER], program
        for rival, theirs in found.items():
            if rival == EAGER:
                continue
            cells = [f"{work.variance:.3g} ± {work.error:.1g}" for work in (ours, theirs)]
            for particles in PARTICLES:
                ratio = ours.product(particles) / theirs.product(particles)
                cells += [milliseconds(work.seconds[particles]) for work in (ours, theirs)]
                cells += ["not run", ""] if math.isnan(ratio) else [f"{ratio:.2g}", "yes" if ratio < 1 else "NO"]
            made.add_row(label, rival, *cells)
            label = ""
        made.add_section()
    return made


def table_of_lengths(rows: Mapping[int, Sequence[Timing]]) -> Table:
    """Milliseconds by the length of a chain, and how they grow as it doubles."""
    made = Table(title="Milliseconds of a gradient of a chain, and how many times those of half the length")
    made.add_column("steps", justify="right")
    for name in WAYS:
        made.add_column(name, justify="right")
    before: Sequence[Timing] = ()
    for length, timings in rows.items():
        grows = [f" (× {t.median / b.median:.2g})" for t, b in zip(timings, before, strict=True)] if before else None
        cells = [milliseconds(timing.median) for timing in timings]
        made.add_row(str(length), *(cell + more for cell, more in zip(cells, grows or [""] * len(cells), strict=True)))
        before = timings
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="PATTERN", help="programs whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="fewer runs, and chains of no more than 100 steps")
    parser.add_argument("--size", type=int, default=10, help="of the programs")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.set_rng_seed(0)
    console = Console(width=None if sys.stdout.isatty() else 160)
    budget = Budget(0.2, 7) if given.quick else Budget(1.0, 25)
    rows = {}
    for name, shape in all_shapes().items():
        if given.only in name:
            print(name, file=sys.stderr, flush=True)
            pyro.clear_param_store()
            rows[name] = works(shape(given.size), budget, 100 if given.quick else 500)
    if not rows:
        parser.error(f"no program has {given.only!r} in its name")
    console.print(table_of_work(rows))
    if "chain" in rows:
        lengths = {}
        for length in LENGTHS[:2] if given.quick else LENGTHS:
            print(f"chain of {length}", file=sys.stderr, flush=True)
            pyro.clear_param_store()
            lengths[length] = timed(chain(length), Budget(budget.seconds, budget.most, least=1))
        console.print(table_of_lengths(lengths))
    console.print("; ".join(f"{name}: {fact}" for name, fact in machine.facts().items()), highlight=False)


if __name__ == "__main__":
    main()
