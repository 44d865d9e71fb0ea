"""The other end of `benchmarks.timing.Worker`: runs in the rival's interpreter and needs the standard library alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

Step = Callable[[], object]


def serve(programs: dict[str, Callable[..., Step]], packages: Sequence[str]) -> None:
    """Answer requests until the other side closes.

    Args:
        programs: for each name a function from settings to what is timed. It has to return when all work is done.
        packages: whose versions are told.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    steps: dict[str, Step] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "open" in request:
            steps[request["key"]] = programs[request["open"]](**request["settings"])
            return {}
        if "run" in request:
            return {"seconds": _seconds(steps[request["key"]], request["run"])}
        return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}

    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception as error:
            said = [part for part in str(error).splitlines() if part.strip()] or [""]
            found = {"failed": f"{type(error).__name__}: {said[0]}"}
        print(json.dumps(found), file=answers)


def _seconds(step: Step, runs: int) -> float:
    begin = time.perf_counter()
    for _ in range(runs):
        step()
    return time.perf_counter() - begin
