"""One table of ratios: ppgrad's time for one program in units of a named rival's.

    python benchmarks/suite.py [--only PATTERN] [--quick] [--out FOLDER]

Everything runs on one thread, the contenders of a program in turns. A rival that breaks, or whose environment
is not there, stays in the table with the reason. Writes benchmarks.json and benchmarks.png into the folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import pyro
import torch
from rich.console import Console

from benchmarks import environments, machine, picture, report
from benchmarks.programs import discrete_vae, hidden_markov, logistic_regression, mlp_policy, replicates, scalar_policy
from benchmarks.timing import Budget, Race, Timing, interleaved
from benchmarks.ways import EAGER

FULL = Budget(seconds=1.0, most=25)
QUICK = Budget(seconds=0.2, most=7)


def races(quick: bool, folder: Path) -> Iterator[Race]:
    """Every race; ``folder`` is where data for other processes lie."""
    yield from scalar_policy.races(quick)
    yield from mlp_policy.races(quick)
    yield from discrete_vae.races(quick, folder)
    yield from logistic_regression.races(quick, folder)
    yield from hidden_markov.races(quick)
    yield from replicates.races(quick)


def main(arguments: list[str] | None = None) -> int:
    """Race, print, save; 1 where ppgrad itself broke."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="PATTERN", help="programs whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="fewer runs, and no more than 100 steps")
    parser.add_argument("--out", type=Path, default=Path("comparison/benchmarks"), metavar="FOLDER")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.set_rng_seed(0)
    about: dict[str, object] = {**machine.facts(), "quick": given.quick}
    console = Console(width=None if sys.stdout.isatty() else 170)
    rows: list[report.Row] = []
    timings: dict[str, list[Timing]] = {}
    with tempfile.TemporaryDirectory() as folder, environments.closing():
        for race in races(given.quick, Path(folder)):
            if given.only.lower() not in race.program.lower():
                continue
            print(race.program, file=sys.stderr, flush=True)
            pyro.clear_param_store()
            raced = interleaved([*race.ways, *race.rivals], QUICK if given.quick else FULL)
            timings[race.program] = raced
            rows += report.rows(race, raced)
        if not rows:
            parser.error(f"no program has {given.only!r} in its name")
        about["JAX and NumPyro"] = environments.JAX.versions()
        about["Storchastic"] = environments.STORCHASTIC.versions()
    given.out.mkdir(parents=True, exist_ok=True)
    report.save(given.out / "benchmarks.json", about, rows, timings)
    picture.save(given.out / "benchmarks.png", rows, about)
    console.print(report.table(rows))
    console.print(report.summary(rows), highlight=False)
    console.print("; ".join(f"{name}: {fact}" for name, fact in about.items()), highlight=False)
    console.print(f"Saved as {given.out / 'benchmarks.json'} and {given.out / 'benchmarks.png'}")
    return int(any(timing.not_run for raced in timings.values() for timing in raced if timing.name == EAGER))


if __name__ == "__main__":
    sys.exit(main())
