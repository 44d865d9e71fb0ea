"""Where a run writes: its log and TensorBoard's events, and nothing over another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pyro
import pytest

from ppgrad import (
    ExpectedReturn,
    InvalidInput,
)
from tests.train.programs import fit, program


def test_logs(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options: dict[str, Any] = {"log_folder": tmp_path / "logs" / "a", "checkpoint": tmp_path / "run.pt"}
    fit(ExpectedReturn(), program, steps=4, evaluate_every=3, tensorboard=True, **options)
    pyro.clear_param_store()
    history = fit(ExpectedReturn(), program, steps=7, evaluate_every=3, tensorboard=True, resume=True, **options)
    table = pandas.read_csv(tmp_path / "logs" / "a" / "progress.csv", index_col="step")
    pandas.testing.assert_frame_equal(table, history.metrics, check_exact=True, check_dtype=False)
    events = EventAccumulator(str(tmp_path / "logs" / "a"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 8))
    assert [event.step for event in events.Scalars("eval/mean_reward")] == [3, 6]


def test_a_folder_that_cannot_be_written_is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    calls: list[int] = []
    for options in (
        {"log_folder": tmp_path / "file"},
        {"log_folder": tmp_path / "file" / "below"},
        {"checkpoint": tmp_path / "file" / "run.pt"},
        {"checkpoint": tmp_path},
    ):
        with pytest.raises(InvalidInput, match=r"file|folder"):
            fit(ExpectedReturn(), program, steps=2, callbacks=[lambda metrics: calls.append(1)], **options)
    assert not calls
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    options = {"checkpoint": tmp_path / "run.pt", "log_folder": tmp_path}
    fit(ExpectedReturn(), program, steps=2, **options)
    held = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(InvalidInput, match=r"run.pt is there already. Write resume=True"):
        fit(ExpectedReturn(), program, steps=2, **options)
    with pytest.raises(InvalidInput, match=r"progress.csv is there already"):
        fit(ExpectedReturn(), program, steps=2, log_folder=tmp_path)
    assert (tmp_path / "run.pt").read_bytes() == held
    assert fit(ExpectedReturn(), program, steps=1, resume=True, **options).steps == 2


def test_tensorboard_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'ppgrad\[train\]'"):
        fit(ExpectedReturn(), program, steps=2, tensorboard=True, log_folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_trainings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    """The second one is told so in a line, whichever way it starts, and the first one's log stays whole."""
    folder, told = tmp_path / "log", []

    def second(metrics: Any) -> None:
        for options in ({"checkpoint": tmp_path / "a.pt", "resume": True}, {"checkpoint": tmp_path / "b.pt"}):
            (folder / "progress.csv").rename(tmp_path / "aside.csv")  # else a new run is refused for that
            with pytest.raises(
                InvalidInput, match=r"Another training writes into .*log\. Wait until it has ended"
            ) as error:
                fit(ExpectedReturn(), program, steps=9, log_folder=folder, **options)
            (tmp_path / "aside.csv").rename(folder / "progress.csv")
            told.append(str(error.value))

    options = {"checkpoint": tmp_path / "a.pt", "log_folder": folder}
    fit(ExpectedReturn(), program, steps=3, callbacks=[second], **options)
    assert len(told) == 6
    assert not any("\n" in line for line in told)
    assert len(pandas.read_csv(folder / "progress.csv")) == 3
    assert not (tmp_path / "b.pt").exists()
    assert fit(ExpectedReturn(), program, steps=5, resume=True, **options).steps == 5


def test_a_training_that_failed_lets_go_of_its_folder(tmp_path: Path) -> None:
    def fail(metrics: Any) -> None:
        raise RuntimeError

    options = {"checkpoint": tmp_path / "a.pt", "log_folder": tmp_path, "resume": True}
    with pytest.raises(RuntimeError):
        fit(ExpectedReturn(), program, steps=3, callbacks=[fail], **options)
    assert fit(ExpectedReturn(), program, steps=3, **options).steps == 3
