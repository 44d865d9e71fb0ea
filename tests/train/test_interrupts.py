"""How a run ends before its last step: when it is asked to, by Ctrl-C, by a number that is not finite."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    ExpectedReturn,
    NonFinite,
    Pathwise,
    ScoreFunction,
)
from tests.train.programs import fit, program, weights


def test_stopping_and_callbacks(tmp_path: Path) -> None:
    seen: list[float] = []
    options: dict[str, Any] = {
        "steps": 50,
        "stop_when": lambda metrics: metrics.get("eval/mean_reward", -math.inf) > -30,
        "callbacks": [lambda metrics: seen.append(metrics["train/loss"])],
        "evaluate_every": 5,
        "learning_rate": 0.5,
        "checkpoint": tmp_path / "run.pt",
    }
    history = fit(ExpectedReturn(), program, **options)
    assert history.stopped == "stop_when"
    assert history.steps % 5 == 0
    assert history.steps < 50
    assert len(seen) == history.steps
    again = fit(ExpectedReturn(), program, **options, resume=True)
    assert again.steps == history.steps
    assert again.stopped == "stop_when"


def nan_in_step(step: int) -> Callable[[], None]:
    seen: set[float] = set()  # the parameter has another value in every step

    def fails() -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        x = ppgrad.policy("x", dist.Normal(loc, 1.0))
        seen.add(loc.item())
        ppgrad.reward("r_1", -((x - 3) ** 2))
        ppgrad.reward("r_2", x * (math.nan if len(seen) >= step else 1.0))

    return fails


def test_a_reward_that_turns_nan_names_site_step_and_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(NonFinite, match=r"'r_2' is nan.*at step 9\. The last good checkpoint, .*run.pt, is of step 8"):
        fit(ExpectedReturn(), nan_in_step(9), steps=30, checkpoint=path, checkpoint_every=4)
    saved = torch.load(path, weights_only=True)["content"]
    assert saved["step"] == 8
    assert torch.equal(saved["parameters"]["loc"], pyro.param("loc").detach())
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()], ids=repr)
def test_a_gradient_that_is_nan_names_its_site(estimator: Any) -> None:
    def root() -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        x = ppgrad.policy("x", dist.Normal(loc, 1.0))
        ppgrad.cost("f", (x - 3) ** 2)
        ppgrad.cost("g", (loc * 0.0).sqrt() * loc)

    with pytest.raises(
        NonFinite, match=r"site 'g' the gradient of the cost with respect to parameter 'loc' is nan.*step 1"
    ):
        fit(ExpectedReturn(estimator), root, steps=3)
    assert pyro.param("loc").item() == 0.0


def test_weights_that_overflow_are_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    options = {"optimizer": torch.optim.SGD, "learning_rate": 3e38, "checkpoint": path, "checkpoint_every": 1}
    with pytest.raises(NonFinite, match=r"After step 1 parameter 'loc' is not finite.*is of step 0"):
        fit(ExpectedReturn(Pathwise()), program, steps=3, **options)
    assert torch.isfinite(torch.load(path, weights_only=True)["content"]["parameters"]["loc"]).all()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_finishes_the_step_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    path, seen, sent = tmp_path / "run.pt", set(), []

    def interrupted() -> None:
        program()
        seen.add(pyro.param("loc")[0].item())  # another value in every step
        if len(seen) == 4 and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"after step 4\. Go on from .*run.pt"):
        fit(ExpectedReturn(), interrupted, steps=12, checkpoint=path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    pyro.clear_param_store()
    fit(ExpectedReturn(), interrupted, steps=12, checkpoint=path, resume=True)
    rest = weights()["loc"]
    pyro.clear_param_store()
    fit(ExpectedReturn(), program, steps=12)
    assert torch.equal(rest, weights()["loc"])


def test_a_callback_that_interrupts_leaves_the_logs_whole(tmp_path: Path) -> None:
    def stop(metrics: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(ExpectedReturn(), program, steps=3, log_folder=tmp_path, callbacks=[stop])
    assert len(pandas.read_csv(tmp_path / "progress.csv")) == 1
