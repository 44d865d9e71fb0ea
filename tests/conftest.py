"""Every test starts with an empty param store and a seed, and leaves no global state behind."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

with suppress(ModuleNotFoundError):  # tests of analysis run without torch, too
    import tests.engine.simulated_device  # noqa: F401  before the first backward pass


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say below all tests that those of a device were left out, where they were."""
    simulated = sys.modules.get("tests.engine.simulated_device")
    if simulated is not None and not simulated.IS_POSSIBLE:
        terminalreporter.write_line(f"NO SIMULATED DEVICE WAS TESTED: {simulated.WHY_NOT}", yellow=True, bold=True)


@pytest.fixture(autouse=True)
def clean_state(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.is_relative_to(Path(__file__).parent / "analysis"):  # runs without torch, too
        yield
        return
    import pyro

    state = pyro.util.get_rng_state()
    pyro.clear_param_store()
    pyro.set_rng_seed(20260101)
    yield
    pyro.clear_param_store()
    pyro.util.set_rng_state(state)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background and a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
