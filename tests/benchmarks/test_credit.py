"""The benchmark of credit: both tables, and ways that do not run."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.credit import PARTICLES, WAYS, Work, table_of_lengths, table_of_work
from benchmarks.timing import Timing

ROOT = Path(__file__).parents[2]


def printed(table: object) -> str:
    console = Console(width=200)
    with console.capture() as caught:
        console.print(table)
    return caught.get()


def test_a_row_that_loses_stays() -> None:
    ours, wins, loses = WAYS
    seconds = dict.fromkeys(PARTICLES, 0.01)
    found = {
        ours: Work(seconds, 2.0, 0.1),
        wins: Work(seconds, 1.0, 0.1),
        loses: Work(seconds | {PARTICLES[-1]: math.nan}, 8.0, 0.1),
    }
    first, second = (line for line in printed(table_of_work({"p": found})).splitlines() if "ELBO" in line)
    assert first.count("NO") == 2
    assert "0.25" in second
    assert "not run" in second


def test_growth_is_in_units_of_half_the_length() -> None:
    rows = {steps: [Timing(name, seconds=[steps / 100]) for name in WAYS] for steps in (50, 100)}
    assert printed(table_of_lengths(rows)).count("(× 2)") == len(WAYS)


@pytest.mark.slow
def test_the_command_prints_a_table() -> None:
    command = [sys.executable, "benchmarks/credit.py", "--quick", "--only", "auxiliary", "--size", "3"]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "Trace_ELBO" in found.stdout
    assert "torch threads: 1" in found.stdout
