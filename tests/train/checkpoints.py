"""Checkpoints that tests write and resume from."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ExpectedReturn, InvalidInput, MovingAverage, ScoreFunction

fit = functools.partial(ppgrad.fit, progress=False)


def program(size: int = 2, name: str = "loc") -> None:
    loc = pyro.param(name, torch.zeros(size))
    with pyro.plate("episodes", 4):
        x = ppgrad.policy("x", dist.Normal(loc, 1.0).to_event(1), context=torch.ones(4, 1))
        ppgrad.cost("f", (x - 3).square().sum(-1))


def resume(path: Path, steps: int = 5, objective: Any = None, args: Any = (), **options: Any) -> ppgrad.History:
    objective = objective or ExpectedReturn(ScoreFunction(MovingAverage()))
    return fit(objective, program, args=args, steps=steps, checkpoint=path, resume=True, **options)


def assert_refused(path: Path, words: str, **options: Any) -> None:
    """A one-line error; no file has changed, and no parameter has moved."""
    held = {file: file.read_bytes() for file in path.parent.iterdir()}
    pyro.clear_param_store()
    with pytest.raises(InvalidInput, match=words) as error:
        resume(path, **options)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == held
    assert all(not value.any() for _, value in pyro.get_param_store().named_parameters())
