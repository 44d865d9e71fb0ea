"""A run that is killed twenty times and resumed ends with the weights of one left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from ppgrad.train.checkpoint import checksum, read_checkpoint


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_twenty_times_at_random(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killing.py")
    shown = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "0"], capture_output=True, text=True, check=False, timeout=240
    )
    assert shown.returncode == 0, shown.stderr
    told = json.loads(shown.stdout.splitlines()[-1])
    assert told["statuses"] == [-9] * 20, shown.stderr
    assert told["steps"] == sorted(told["steps"])
    assert len(set(told["steps"])) > 5, "hardly any kill fell into the training"
    assert (told["last"], told["alone"]) == (0, 0), shown.stderr
    killed, alone = (read_checkpoint(tmp_path / name / "run.pt") for name in ("killed", "alone"))
    for part in ("parameters", "optimizer", "memory", "since_calibration", "generators", "noise", "step"):
        assert checksum(killed[part]) == checksum(alone[part]), part
    tables = [pandas.read_csv(tmp_path / name / "progress.csv") for name in ("killed", "alone")]
    kept = [table[[name for name in table if name not in ("time/time_elapsed", "time/fps")]] for table in tables]
    pandas.testing.assert_frame_equal(*kept, check_exact=True)
    assert {file.name for file in (tmp_path / "killed").iterdir()} == {"run.pt", "progress.csv"}
