"""Checkpoints: whole or not there at all, safe to load, and of this program."""

from __future__ import annotations

import errno
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from ppgrad import Critic, ExpectedReturn, InvalidInput, MovingAverage, Pathwise, ScoreFunction
from ppgrad.train.checkpoint import checksum, read_checkpoint, write_checkpoint
from tests.train.checkpoints import assert_refused, resume


def test_what_is_in_it_loads_safely(written: Path) -> None:
    whole = torch.load(written, weights_only=True)
    assert whole["format"] == "ppgrad checkpoint"
    content = whole["content"]
    assert content["step"] == 3
    assert content["parameters"]["loc"].shape == (2,)
    assert float(content["memory"]["x"]["count"]) == 3
    assert content["metrics"]["train/loss"].shape == (3,)
    assert [file.name for file in written.parent.iterdir()] == ["run.pt"]


def test_truncated_anywhere(written: Path) -> None:
    whole = written.read_bytes()
    for length in [0, 1, 3, *np.linspace(4, len(whole) - 1, 12).astype(int)]:
        written.write_bytes(whole[:length])
        assert_refused(written, "truncated or damaged")


def test_a_changed_bit_is_found_or_changes_nothing(written: Path) -> None:
    """A flip is refused, unless it falls on what a zip file does not use; then all values are as they were."""
    whole, generator = written.read_bytes(), random.Random(0)
    known = read_checkpoint(written)
    found = 0
    for _ in range(150):
        place = generator.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.randrange(8)
        written.write_bytes(damaged)
        try:
            assert checksum(read_checkpoint(written)) == checksum(known)
        except InvalidInput:
            found += 1
    assert found > 15


def test_a_changed_number_is_found(written: Path) -> None:
    def lower(content: dict[str, Any]) -> None:
        content["step"] = 1

    def push(content: dict[str, Any]) -> None:
        content["parameters"]["loc"][1] += 1e-6

    def rename(content: dict[str, Any]) -> None:
        content["memory"]["y"] = content["memory"].pop("x")

    for change in (lower, push, rename):
        whole = torch.load(written, weights_only=True)
        change(whole["content"])
        torch.save(whole, written.with_name("other.pt"))
        assert_refused(written.with_name("other.pt"), "was changed after it was written")


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    path.write_text("not a checkpoint")
    assert_refused(path, "is no checkpoint")
    torch.save({"loc": torch.zeros(2)}, path)
    assert_refused(path, "is no checkpoint of ppgrad.fit")
    torch.save(torch.zeros(2), path)
    assert_refused(path, "is no checkpoint of ppgrad.fit")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello", "world")
    assert_refused(path, "is no checkpoint, or is truncated")
    torch.save({"format": "ppgrad checkpoint", "version": 99, "content": {}}, path)
    assert_refused(path, "format version 99")


class Malicious:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def test_nothing_in_it_is_executed(tmp_path: Path) -> None:
    path, victim = tmp_path / "run.pt", tmp_path / "victim"
    torch.save({"format": "ppgrad checkpoint", "version": 1, "content": Malicious(victim)}, path)
    assert_refused(path, "is no checkpoint")
    path.write_bytes(pickle.dumps(Malicious(victim)))
    assert_refused(path, "is no checkpoint")
    assert not victim.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"args": (3,)}, r"parameter 'loc' is float32 \(2,\) there and float32 \(3,\) here"),
        ({"args": (2, "other")}, r"parameter 'loc' is float32 \(2,\) there and missing here"),
        (
            {"objective": ExpectedReturn(Pathwise())},
            r"objective is ExpectedReturn\(ScoreFunction.* there and .*Pathwise",
        ),
        (
            {"objective": ExpectedReturn(ScoreFunction(MovingAverage()), discount=0.5)},
            r"discount=1.0, and this one discount=0.5",
        ),
        (
            {"objective": ExpectedReturn(ScoreFunction(Critic(nn.Linear(1, 1))))},
            r"critic 'critic_0.weight' is missing there",
        ),
        ({"seed": 1}, "trained with seed=0, and this one seed=1. Write seed=0 to go on"),
        ({"learning_rate": 0.5}, r"trained with learning_rate=0.001, and this one learning_rate=0.5. Write learning_r"),
        ({"optimizer": torch.optim.SGD}, r"optimizer=Adam, and this one optimizer=SGD"),
        ({"optimizer": pyro.optim.Adam({"lr": 0.1})}, r"optimizer=Adam, and this one optimizer=PyroOptim Adam"),
        ({"schedule": "cosine"}, r"schedule=constant, and this one schedule=cosine"),
        ({"max_grad_norm": 1.0}, "max_grad_norm=None, and this one max_grad_norm=1.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_of_another_program_or_run(written: Path, options: dict[str, Any], words: str) -> None:
    assert_refused(written, words, **options)


def test_a_folder_and_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="is a folder"):
        resume(tmp_path)
    path = tmp_path / "run.pt"
    path.write_text("")

    def refuses(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuses)
    with pytest.raises(InvalidInput, match="cannot be read: Permission denied"):
        resume(path)


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_one(written: Path, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = written.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(InvalidInput, match=r"run.pt cannot be written: No space") as error:
        resume(written)
    assert "\n" not in str(error.value)
    assert written.read_bytes() == held
    assert [file.name for file in written.parent.iterdir()] == ["run.pt"]


def test_only_plain_things_are_written(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    write_checkpoint(path, {"a": [np.float64(1.5), np.int64(2)], "b": (True, None, "x", {1: torch.ones(2)})})
    assert read_checkpoint(path)["a"] == [1.5, 2]
    with pytest.raises(InvalidInput, match=r"checkpoint.optimizer.0.rate is of type function"):
        write_checkpoint(path, {"optimizer": [{"rate": lambda step: 0.1}]})
    assert read_checkpoint(path)["a"] == [1.5, 2]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": [1, 2]}, {"a": (1, 2)}),
        ({"a": [[1], 2]}, {"a": [[1, 2]]}),
        ({"a": torch.zeros(2)}, {"a": torch.zeros(2, 1)}),
        ({"a": torch.zeros(2)}, {"a": -torch.zeros(2)}),
        ({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.int32)}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_checksums_tell_things_apart(first: Any, second: Any) -> None:
    assert checksum(first) != checksum(second)
    assert checksum(first) == checksum(first)


def test_strides_do_not_matter() -> None:
    """A tensor of one element may have any stride, as one that was expanded has."""
    odd = torch.tensor(2.0).expand(1)
    assert odd.stride() == (0,)
    grid = torch.arange(6.0).reshape(2, 3)
    for one, other in ((odd, torch.tensor([2.0])), (grid.T, grid.T.contiguous()), (grid.bfloat16(), grid.bfloat16())):
        assert checksum(one) == checksum(other)


def test_an_expanded_tensor_is_written_whole(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run.pt", {"a": torch.zeros(1).expand(10**5)})
    assert read_checkpoint(tmp_path / "run.pt")["a"].shape == (10**5,)
