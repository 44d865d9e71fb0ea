"""Plants faults, one at a time, and runs the tests that are to find each: `make mutants`.

    python tools/mutants.py [WORD …]        only the faults whose file or text has one of the words

The package and its tests are copied into a temporary folder, one fault is written into the copy, and the tests named
with it run there. A fault is found where a test fails. One whose old text is no longer in the source, once, is an
error: the list follows the code.
"""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 120
"""Seconds of CPU, which a fault's tests may take at most."""

Verdict = Literal["found", "SURVIVED", "not run"]


class Fault(NamedTuple):
    """A mistake that somebody could make.

    Args:
        file: in ``ppgrad/``.
        old, new: the text before and after; ``old`` stands there once.
        tests: what pytest is to run; a first word ``conformance:A,B`` or ``conformance:A@p,q`` stands for the
            conformance of the members, or baselines, A and B, on the problems that have p or q in their name.
    """

    file: str
    old: str
    new: str
    tests: str


def all_faults() -> list[Fault]:
    """Those of ``faults.toml``."""
    with (ROOT / "tools" / "faults.toml").open("rb") as file:
        return [Fault(**fault) for fault in tomllib.load(file)["fault"]]


def check_all(faults: Sequence[Fault]) -> None:
    """Raise unless every fault can be planted."""
    for fault in faults:
        count = (ROOT / "ppgrad" / fault.file).read_text().count(fault.old)
        if count != 1 or fault.old == fault.new:
            raise SystemExit(f"{fault.file}: {fault.old!r} stands there {count} times. Mend tools/faults.toml.")


def verdict_of(fault: Fault) -> tuple[Verdict, float, str]:
    """Plant one fault in a copy, run its tests there, in a process of their own: verdict, seconds, failed test."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ppgrad", "tests", "models", "benchmarks", "tools"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
            shutil.copy(ROOT / name, folder)
        file = Path(folder, "ppgrad", fault.file)
        file.write_text(file.read_text().replace(fault.old, fault.new))
        child = os.fork()  # torch and Pyro are there already
        if child == 0:
            _run(folder, fault.tests)
        verdicts: dict[int, Verdict] = {0: "SURVIVED", 1: "found"}
        code, seconds = _ended(child)
        return verdicts.get(code, "not run"), seconds, _failed(Path(folder, "output").read_text(errors="replace"))


def _failed(output: str) -> str:
    """The test that failed; the last line that pytest wrote, where none did."""
    lines = output.strip().splitlines() or [""]
    failed = [line.partition(" - ")[0].partition("::")[2] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return failed[0] if failed else lines[-1]


def _run(folder: str, tests: str) -> None:
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    os.chdir(folder)
    sys.path.insert(0, folder)
    quiet = os.open("output", os.O_WRONLY | os.O_CREAT)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    words = tests.split()
    if words[0].startswith("conformance:"):
        os.environ["PPGRAD_MEMBERS"], _, os.environ["PPGRAD_PROBLEMS"] = words.pop(0).partition(":")[2].partition("@")
        words.insert(0, "tests/mutants/test_members.py")
    import ppgrad

    assert str(ppgrad.__file__).startswith(folder)
    os._exit(pytest.main(["-x", "-q", "-rfE", "-p", "no:cacheprovider", *words]))


def _ended(child: int) -> tuple[int, float]:
    """The exit code of pytest, and its seconds of CPU: 1 where a test failed, less than 0 where it took too long."""
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return 1 if code == 2 else code, used.ru_utime + used.ru_stime  # 2: so plain that no test can be collected


def main(words: Sequence[str]) -> None:
    """Run the faults, print a line for each, and fail if one has survived."""
    faults = all_faults()
    check_all(faults)
    chosen = [fault for fault in faults if not words or any(word in f"{fault.file} {fault.old}" for word in words)]
    _warm()
    verdicts: list[Verdict] = []
    for fault in chosen:
        verdict, seconds, test = verdict_of(fault)
        verdicts.append(verdict)
        change = f"{fault.old.strip()} → {fault.new.strip()}".replace("\n", " ")
        print(f"{verdict:8} {seconds:5.1f} s  {fault.file}: {change[:90]}  [{test[:90]}]", flush=True)
    print(f"{len(chosen)} faults: " + ", ".join(f"{verdicts.count(v)} {v}" for v in ("found", "SURVIVED", "not run")))
    raise SystemExit(verdicts.count("found") < len(chosen))


def _warm() -> None:
    """Import what takes long, once for all."""
    for name in ("pandas", "pyro.infer", "pytest", "scipy.stats", "torch"):
        importlib.import_module(name)


if __name__ == "__main__":
    main(sys.argv[1:])
