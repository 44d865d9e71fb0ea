"""What a run goes on from: values that fit the program, the random generators."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch

from ppgrad.train.checkpoint import read_checkpoint, write_checkpoint
from ppgrad.train.state import generators_state, restore_generators
from tests.train.checkpoints import assert_refused


def at(content: dict[str, Any], *keys: Any) -> Callable[[Any], None]:
    """What sets the value under ``keys`` of a checkpoint's content."""
    *outer, last = keys
    for key in outer:
        content = content[key]
    return functools.partial(content.__setitem__, last)


FORGED: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "step": (("step",), 1, "metric 'train/loss' of 1 steps"),
    "negative step": (("step",), -1, "its step is -1"),
    "step of text": (("step",), "3", "its step is '3'"),
    "step of a tensor": (("step",), torch.tensor(3), r"its step is tensor\(3\)"),
    "dtype": (("parameters", "loc"), torch.zeros(2, dtype=torch.float64), "parameter 'loc' is torch.float64"),
    "integers": (("parameters", "loc"), torch.zeros(2, dtype=torch.int64), "parameter 'loc' is torch.int64"),
    "one element": (("parameters", "loc"), torch.zeros(1), r"parameter 'loc' is .*shape \(1,\), and is to be .*\(2,\)"),
    "scalar": (("parameters", "loc"), torch.zeros(()), r"parameter 'loc' is .*shape \(\)"),
    "outer dimension": (("parameters", "loc"), torch.zeros(1, 2), r"parameter 'loc' is .*shape \(1, 2\)"),
    "number": (("parameters", "loc"), 0.0, "parameter 'loc' is of type float"),
    "no parameters": (("parameters",), {}, "it lacks 'loc'"),
    "timesteps": (("timesteps",), {}, r"its timesteps is \{\}"),
    "elapsed": (("elapsed",), float("nan"), "its elapsed time is nan"),
    "vectorize": (("vectorize",), 1, "its vectorize is 1"),
    "since calibration": (("since_calibration",), None, "its since_calibration is None"),
    "metrics": (("metrics",), {}, "is of step 3 and has no metrics"),
    "metric": (("metrics", "train/loss"), torch.zeros(3), "metric 'train/loss' of 3 steps is torch.float32"),
    "noise": (("noise", "mean"), torch.zeros(1), r"noise's mean gradient is .*shape \(1,\)"),
    "fingerprint": (("fingerprint",), {}, "does not say of which program it is"),
    "generators": (("generators", "torch"), torch.zeros(3), "does not fit the program"),
    "optimizer": (("optimizer",), {"optimizer": {}, "schedule": None}, "does not fit the program"),
    "memory": (("memory",), [1], "does not fit the program"),
}


@pytest.mark.parametrize("name", FORGED)
def test_values_that_do_not_fit_are_refused_whatever_the_checksum(name: str, written: Path) -> None:
    keys, value, words = FORGED[name]
    content = torch.load(written, weights_only=True)["content"]
    at(content, *keys)(value)
    write_checkpoint(written, content)
    assert_refused(written, words)


def nested(depth: int) -> list[Any]:
    tree: list[Any] = []
    for _ in range(depth):
        tree = [tree]
    return tree


def cyclic() -> list[Any]:
    tree: list[Any] = []
    tree.append(tree)
    return tree


ODD: dict[str, Callable[[], Any]] = {
    "view of 1e12 elements": lambda: torch.zeros(1).expand(10**12),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "meta": lambda: torch.zeros(2, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
    "deep": lambda: nested(200),
    "cyclic": cyclic,
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ODD)
def test_what_no_run_writes_is_refused(name: str, written: Path) -> None:
    whole = torch.load(written, weights_only=True)
    whole["content"]["parameters"]["loc"] = ODD[name]()
    torch.save(whole, written)
    assert_refused(written, r"holds what no ppgrad.fit has written|is no checkpoint, or is truncated")


@pytest.mark.parametrize("draw", [torch.rand, np.random.random, np.random.standard_normal, random.random, random.gauss])
def test_generators_go_on(draw: Callable[..., Any], tmp_path: Path) -> None:
    arguments = (0.0, 1.0) if draw is random.gauss else (3,) if draw is torch.rand else ()
    pyro.set_rng_seed(1)
    draw(*arguments)
    write_checkpoint(tmp_path / "run.pt", generators_state())
    expected = [draw(*arguments) for _ in range(3)]
    pyro.set_rng_seed(2)
    restore_generators(read_checkpoint(tmp_path / "run.pt"))
    assert str([draw(*arguments) for _ in range(3)]) == str(expected)
