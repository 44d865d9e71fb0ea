"""The rivals that live in an environment of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.timing import Worker

ROOT = Path(__file__).parents[1]
JAX = Worker(
    ROOT / ".venv-jax" / "bin" / "python", ROOT / "benchmarks" / "rivals" / "jax_worker.py", "make bench-environments"
)
STORCHASTIC = Worker(
    ROOT / ".venv-storchastic" / "bin" / "python",
    ROOT / "benchmarks" / "rivals" / "storchastic_worker.py",
    "make bench-environments",
)


@contextlib.contextmanager
def closing() -> Iterator[None]:
    """Stop their processes on leaving."""
    try:
        yield
    finally:
        for worker in (JAX, STORCHASTIC):
            worker.close()
