"""Every test starts with an empty param store and a seed, and leaves no global state behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

with suppress(ModuleNotFoundError):  # tests of analysis run without torch, too
    import tests.engine.simulated_device  # noqa: F401  before the first backward pass


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
