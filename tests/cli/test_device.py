"""``--device``: where a problem is made and runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ppgrad.cli import devices
from ppgrad.cli.app import app
from ppgrad.cli.devices import on_device
from tests.engine.simulated_device import IS_POSSIBLE, NAME, WHY_NOT, simulated_device

QUADRATIC = str(Path(__file__).parents[2] / "models" / "quadratic.py")


@pytest.mark.parametrize("command", ["compare", "train"])
@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:77"])
def test_a_device_that_is_not_there(command: str, name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [command, QUADRATIC, "--device", name, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: --device {name}: there is no such device here. Write one of cpu")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_processor_is_always_there() -> None:
    assert devices.devices()[0] == "cpu"
    with on_device("cpu"):
        assert torch.zeros(1).device.type == "cpu"
    with on_device(None):
        assert torch.zeros(1).device == torch.get_default_device()


def commands(out: Path) -> list[list[str]]:
    return [
        [
            "compare",
            QUADRATIC,
            "--replicates",
            "20",
            "--estimators",
            "score+loo,pathwise",
            "--out",
            str(out / "compare"),
        ],
        ["train", QUADRATIC, "--steps", "3", "--out", str(out / "train")],
    ]


@pytest.mark.skipif(not IS_POSSIBLE, reason=str(WHY_NOT))
def test_a_problem_runs_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "devices", lambda: ["cpu", f"{NAME}:0"])
    for arguments in commands(tmp_path):
        with simulated_device() as simulation:
            result = CliRunner().invoke(app, [*arguments, "--device", NAME])
            assert result.exit_code == 0, result.stderr
            assert simulation.synchronisations, "nothing ran there"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_problem_runs_on_a_gpu(tmp_path: Path) -> None:
    for arguments in commands(tmp_path):
        result = CliRunner().invoke(app, [*arguments, "--device", "cuda"])
        assert result.exit_code == 0, result.stderr
