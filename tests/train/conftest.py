"""A checkpoint to resume from."""

from __future__ import annotations

from pathlib import Path

import pyro
import pytest

from ppgrad import ExpectedReturn, MovingAverage, ScoreFunction
from tests.train.checkpoints import fit, program


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "run.pt"
    fit(ExpectedReturn(ScoreFunction(MovingAverage())), program, steps=3, checkpoint=path)
    pyro.clear_param_store()
    return path
