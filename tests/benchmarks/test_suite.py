"""The suite itself: turns, workers, rows that lose or do not run, and what it saves."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import picture, report
from benchmarks.timing import (
    BURST_SECONDS,
    Budget,
    Burst,
    Contender,
    NotRun,
    Race,
    Worker,
    calibrated,
    fixed,
    interleaved,
)
from benchmarks.ways import accumulating

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
sys.path.insert(0, {rivals!r})
from worker import serve

def loud(said):
    print(said)
    return lambda: print(said)

def broken():
    raise ValueError("cannot be built\\nmore")

def leaves():
    sys.exit(3)

serve({{"loud": loud, "broken": broken, "leaves": leaves}}, ("torch",))
"""


def logged(name: str, seconds: float, log: list[str]) -> Contender:
    def prepare() -> Burst:
        def burst(runs: int) -> float:
            log.append(name)
            return seconds * runs

        return burst

    return Contender(name, prepare)


def raising(error: Exception) -> Callable[[], Burst]:
    def prepare() -> Burst:
        raise error

    return prepare


def race() -> Race:
    return Race(
        "program",
        [Contender("ppgrad", lambda: fixed(0.4)), Contender("ppgrad compiled", raising(TypeError("no 'compile'")))],
        [
            Contender("wins", lambda: fixed(0.1), targets={"ppgrad": 1.3}),
            Contender("loses", lambda: fixed(0.4), times=10, targets={"ppgrad": 1.3, "ppgrad compiled": 1.5}),
            Contender("is missing", raising(NotRun("no .venv-jax")), against=("ppgrad",)),
        ],
    )


@pytest.fixture
def raced() -> tuple[Race, list[report.Row]]:
    given = race()
    return given, report.rows(given, interleaved([*given.ways, *given.rivals], Budget(1.0, 3)))


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    script = tmp_path / "served.py"
    script.write_text(WORKER.format(rivals=str(ROOT / "benchmarks" / "rivals")))
    return Worker(Path(sys.executable), script, "make it")


def test_runs_are_interleaved_and_the_slow_have_fewer() -> None:
    log: list[str] = []
    fast, slow = interleaved([logged("fast", 0.2, log), logged("slow", 5.0, log)], Budget(seconds=1.0, most=4))
    assert log[-6:] == ["fast", "slow", "fast", "slow", "fast", "fast"]
    assert fast.seconds == [0.2] * 4
    assert slow.seconds == [5.0] * 2


def test_a_slow_first_run_does_not_count_for_the_burst() -> None:
    cold, warm = 0.05, 0.001
    paused: list[int] = []

    def burst(runs: int) -> float:
        paused.append(runs)
        return warm * runs + (cold if len(paused) == 1 else 0.0)

    assert calibrated(burst) * warm >= BURST_SECONDS


def test_a_first_run_that_compiles_leaves_the_bursts_as_long() -> None:
    asked: list[int] = []

    def burst(runs: int) -> float:
        asked.append(runs)
        return 0.001 * runs + (5.0 if len(asked) == 1 else 0.0)

    (timing,) = interleaved([Contender("compiles", lambda: burst)], Budget(seconds=0.5, most=3))
    assert timing.runs * 0.001 >= BURST_SECONDS
    assert timing.median == pytest.approx(0.001)


def test_one_that_breaks_while_it_runs_says_why() -> None:
    left = iter([1.0] * 5)
    breaking = Contender("breaking", lambda: lambda runs: next(left))
    found, other = interleaved([breaking, Contender("other", lambda: fixed(1.0))], Budget(seconds=9.0, most=3))
    assert found.not_run.startswith("StopIteration")
    assert math.isnan(found.median)
    assert len(other.seconds) == 3


def test_the_table_keeps_what_loses_and_what_does_not_run(raced: tuple[Race, list[report.Row]]) -> None:
    _, rows = raced
    assert [(row.way, row.rival, row.met, row.not_run) for row in rows] == [
        ("ppgrad", "wins", False, ""),
        ("ppgrad", "loses", True, ""),
        ("ppgrad", "is missing", None, "no .venv-jax"),
        ("ppgrad compiled", "wins", None, "TypeError: no 'compile'"),
        ("ppgrad compiled", "loses", None, "TypeError: no 'compile'"),
    ]
    assert [row.ratio for row in rows[:2]] == pytest.approx([4.0, 0.1])
    console = Console(width=200)
    with console.capture() as caught:
        console.print(report.table(rows))
    text = caught.get()
    assert "NO" in text
    assert "not run: no .venv-jax" in text
    assert "1 of 2 targets are met" in report.summary(rows)
    assert "ppgrad takes 4 × wins, target 1.3" in report.summary(rows)


def test_json_and_picture_have_every_row(raced: tuple[Race, list[report.Row]], tmp_path: Path) -> None:
    given, rows = raced
    timings = interleaved([*given.ways, *given.rivals], Budget(1.0, 3))
    machine = {"processor": "p", "cores": 2, "torch": "2"}
    report.save(tmp_path / "rows.json", machine, rows, {given.program: timings})
    saved = json.loads((tmp_path / "rows.json").read_text())
    assert len(saved["rows"]) == 5
    assert saved["rows"][0]["ratio"] == pytest.approx(4.0)
    assert saved["rows"][2]["ratio"] is None
    assert [timing["name"] for timing in saved["timings"]["program"]][-1] == "is missing"
    picture.save(tmp_path / "rows.png", rows, machine)
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")


def test_a_worker_takes_its_turns_and_what_it_prints_is_no_answer(worker: Worker) -> None:
    burst = worker.burst("loud", said="{}")
    assert 0 < burst(3) < 1
    assert worker.versions()["torch"] == torch.__version__
    worker.close()


@pytest.mark.parametrize(
    ("program", "settings", "why"),
    [("broken", {}, "ValueError: cannot be built"), ("loud", {"more": 1}, "TypeError: "), ("leaves", {}, "status 3")],
)
def test_a_worker_says_why_it_did_not_run(worker: Worker, program: str, settings: dict[str, int], why: str) -> None:
    with pytest.raises(NotRun, match=why):
        worker.burst(program, **settings)
    worker.close()


def test_an_environment_that_is_missing_is_named_with_the_command(tmp_path: Path) -> None:
    absent = Worker(tmp_path / ".venv-absent" / "bin" / "python", tmp_path / "script.py", "make environments")
    with pytest.raises(NotRun, match=r"no \.venv-absent; make it with make environments"):
        absent.burst("anything")
    assert "make environments" in absent.versions()["not run"]


def test_what_takes_no_gradient_does_not_race() -> None:
    class Lazy:
        def loss_and_grads(self, *args: object) -> float:
            return 0.0

    with pytest.raises(NotRun, match="no gradient arrives at weight"):
        accumulating(Lazy(), None, None, torch.nn.Linear(1, 1))


@pytest.mark.slow
def test_the_command_writes_a_table_and_a_picture(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/suite.py", "--quick", "--only", "scalar", "--out", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    saved = json.loads((tmp_path / "benchmarks.json").read_text())
    assert {row["rival"] for row in saved["rows"]} >= {"torch by hand", "Pyro TraceGraph_ELBO", "JAX scan + jit"}
    by_hand = next(row for row in saved["rows"] if row["rival"] == "torch by hand")
    assert by_hand["ratio"] > 0
    assert saved["machine"]["torch threads"] == 1
    assert (tmp_path / "benchmarks.png").stat().st_size > 10_000
    assert "targets are met" in found.stdout
