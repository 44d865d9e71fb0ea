"""Median times of contenders whose runs are interleaved, in this process and in others."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Burst = Callable[[int], float]
"""Runs that many times and returns the seconds that all of them took."""

BURST_SECONDS = 0.02
"""What is faster runs several times in a row, so that one time is about as long as this."""

MOST_RUNS = 1000


class NotRun(Exception):
    """Why a contender has no time."""


@dataclass(frozen=True)
class Contender:
    """One way to do what a program asks for.

    Args:
        name: what the table calls it.
        prepare: gets everything ready and returns a burst. Whatever it raises is why it was not run.
        times: its time is multiplied by this, as for ``one gradient, 1,000 times``.
        targets: for each way of ppgrad, the most that its time may be in units of this one's.
        against: the ways that are compared with this rival; all where it is empty.
        limit: the most seconds that getting ready may take, the first run included; None where nothing is asked for.
    """

    name: str
    prepare: Callable[[], Burst]
    times: float = 1.0
    targets: Mapping[str, float] = field(default_factory=dict)
    against: Sequence[str] = ()
    limit: float | None = None


@dataclass(frozen=True)
class Race:
    """Contenders that do the same, ppgrad's ways and their rivals; ``itself`` where ppgrad is the rival, too."""

    program: str
    ways: Sequence[Contender]
    rivals: Sequence[Contender]
    itself: bool = False


@dataclass(frozen=True)
class Budget:
    """Runs go on until a contender has used its seconds or has its number of times, but it has two at least."""

    seconds: float
    most: int
    least: int = 2


@dataclass
class Timing:
    """The times of one contender, each the mean of a burst of ``runs`` in seconds a run, or why there are none."""

    name: str
    times: float = 1.0
    preparation: float = math.nan
    runs: int = 0
    seconds: list[float] = field(default_factory=list)
    not_run: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) * self.times if self.seconds and not self.not_run else math.nan


def in_process(step: Callable[[], object]) -> Burst:
    """A burst of a function of this process."""

    def burst(runs: int) -> float:
        begin = time.perf_counter()
        for _ in range(runs):
            step()
        return time.perf_counter() - begin

    return burst


def fixed(seconds: float) -> Burst:
    """A burst that takes as long as it is told to, in words alone: a limit to compare with."""
    return lambda runs: seconds * runs


def interleaved(contenders: Sequence[Contender], budget: Budget) -> list[Timing]:
    """Time all contenders in turns; one that breaks says why and the others go on."""
    timings = [Timing(contender.name, contender.times) for contender in contenders]
    bursts: dict[int, tuple[Burst, int]] = {}
    for i, (contender, timing) in enumerate(zip(contenders, timings, strict=True)):
        begin = time.perf_counter()
        try:
            burst = contender.prepare()
            burst(1)  # may compile: it says nothing of those that follow
            timing.preparation = time.perf_counter() - begin
            runs = 1 if burst(1) >= budget.seconds else calibrated(burst)
        except Exception as error:
            timing.not_run = reason(error)
        else:
            bursts[i] = burst, runs
            timing.runs = runs
    used = dict.fromkeys(bursts, 0.0)
    for turn in itertools.count():
        going = [i for i in bursts if turn < budget.least or (turn < budget.most and used[i] < budget.seconds)]
        if not going:
            return timings
        for i in going:
            burst, runs = bursts[i]
            try:
                seconds = burst(runs)
            except Exception as error:
                timings[i].not_run = reason(error)
                del bursts[i]
                continue
            timings[i].seconds.append(seconds / runs)
            used[i] += seconds
    return timings


def calibrated(burst: Burst) -> int:
    """How many runs last as long as a burst should, warm.

    One run alone says nothing: after a pause, which is what waiting for one's turn is, the first one takes several
    times as long as those that follow.
    """
    runs = 1
    while runs < MOST_RUNS:
        seconds = min(burst(runs) for _ in range(3))
        if seconds >= BURST_SECONDS:
            break
        runs = min(MOST_RUNS, math.ceil(runs * min(10.0, max(1.5, BURST_SECONDS / max(seconds, 1e-9)))))
    return runs


def reason(error: Exception) -> str:
    """One line that says what went wrong."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [""]
    return lines[0] if isinstance(error, NotRun) else f"{type(error).__name__}: {lines[0]}"


class Worker:
    """A process with an interpreter of its own that takes its turns when it is told to.

    One JSON object a line: ``{"open": program, "settings": {…}}``, ``{"run": times}``, ``{"versions": true}``.

    Args:
        interpreter: the Python of the rival's environment.
        script: served by `benchmarks.rivals.worker.serve`.
        made_by: the command that makes the environment.
    """

    def __init__(self, interpreter: Path, script: Path, made_by: str):
        self.interpreter, self.script, self.made_by = interpreter, script, made_by
        self._process: subprocess.Popen[str] | None = None
        self._opened = ""

    def burst(self, program: str, **settings: Any) -> Burst:
        """A burst of one of the script's programs."""
        key = json.dumps([program, settings], sort_keys=True)
        self.ask(open=program, settings=settings, key=key)
        return lambda runs: self.ask(run=runs, key=key)["seconds"]

    def versions(self) -> dict[str, str]:
        """What the environment has installed, or why nothing is known of it."""
        try:
            return self.ask(versions=True)
        except NotRun as error:
            return {"not run": str(error)}

    def ask(self, **request: Any) -> Any:
        """Send one line, wait for one line."""
        process = self._started()
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            process.wait()
            raise NotRun(f"{self.script.name} stopped with exit status {process.returncode}")
        answer = json.loads(line)
        if "failed" in answer:
            raise NotRun(answer["failed"])
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(10)
            self._process.stdout.close()
            self._process = None

    def _started(self) -> Any:
        if self._process is None:
            if not self.interpreter.exists():
                raise NotRun(f"no {self.interpreter.parent.parent.name}; make it with {self.made_by}")
            self._process = subprocess.Popen(
                [str(self.interpreter), str(self.script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        return self._process
