"""A run that stops and is resumed ends bit for bit like one left alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import ppgrad
from ppgrad import (
    Critic,
    Enumerate,
    ExpectedReturn,
    MovingAverage,
    NaturalGradient,
    ScoreFunction,
)
from ppgrad.core import Calibrates
from ppgrad.objectives._shared.calibration import EVERY
from ppgrad.testing import Case
from ppgrad.train.checkpoint import checksum
from tests.engine.cases import one_problem_each
from tests.train.programs import Policy, episode, fit, program, weights

OPTIMIZERS: dict[str, Callable[[], dict[str, Any]]] = {
    "default": lambda: {},
    "class": lambda: {"optimizer": torch.optim.AdamW, "learning_rate": 0.01},
    "momentum": lambda: {"optimizer": functools.partial(torch.optim.SGD, momentum=0.9), "learning_rate": 0.01},
    "RMSprop": lambda: {"optimizer": torch.optim.RMSprop},
    "Rprop": lambda: {"optimizer": torch.optim.Rprop},
    "LBFGS": lambda: {"optimizer": functools.partial(torch.optim.LBFGS, max_iter=3), "learning_rate": 0.1},
    "linear": lambda: {"schedule": "linear", "learning_rate": np.float64(0.1)},
    "exponential": lambda: {"schedule": functools.partial(lr_scheduler.ExponentialLR, gamma=0.9)},
    "one cycle": lambda: {"schedule": functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=50)},
    "plateau": lambda: {"schedule": functools.partial(lr_scheduler.ReduceLROnPlateau, patience=2)},
    "milestones": lambda: {"schedule": functools.partial(lr_scheduler.MultiStepLR, milestones=[3, 6])},
    "natural": lambda: {"optimizer": NaturalGradient(program, lr=0.3)},
    "natural with a schedule": lambda: {"optimizer": NaturalGradient(program, lr=0.3), "schedule": "linear"},
    "pyro": lambda: {"optimizer": pyro.optim.Adam({"lr": 0.05})},
    "pyro clipped": lambda: {"optimizer": pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.9})},
    "pyro schedule": lambda: {
        "optimizer": pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.9})
    },
    "pyro plateau": lambda: {
        "optimizer": pyro.optim.ReduceLROnPlateau(
            {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, "patience": 1}
        )
    },
}


def looped() -> None:
    x = ppgrad.policy("x", dist.Bernoulli(logits=pyro.param("logit", torch.zeros(()))))
    if x.item() > 0:
        y = ppgrad.policy("y", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))
        ppgrad.cost("f", (y - np.random.standard_normal()) ** 2)
    ppgrad.cost("g", x)


def branching() -> None:
    x = ppgrad.policy("x", dist.Categorical(logits=pyro.param("logits", torch.zeros(3))))
    y = ppgrad.policy("y", dist.Bernoulli(logits=pyro.param("logit", torch.zeros(3))[x]))
    ppgrad.cost("f", (x - 1.0) ** 2 + y * ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0)))


PROGRAMS: dict[str, tuple[Callable[[], Any], Callable[[], None]]] = {
    "looped": (lambda: ExpectedReturn(ScoreFunction(MovingAverage()), num_particles=3), looped),
    "summed over": (lambda: ExpectedReturn(sites={"[xy]": Enumerate()}, num_particles=2), branching),
    "run again": (lambda: ExpectedReturn(sites={"[xy]": ppgrad.LocalExpectation()}, num_particles=2), branching),
    "gated": (lambda: ExpectedReturn(sites={"y": ppgrad.REBAR()}), branching),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_program_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    make, fn = PROGRAMS[name]
    ends = []
    for stops in ([120], [50, 120]):
        pyro.clear_param_store()
        for stop in stops:
            objective = make()
            pyro.clear_param_store()
            history = fit(
                objective, fn, steps=stop, learning_rate=0.01, checkpoint=tmp_path / f"{len(stops)}", resume=True
            )
        ends.append((weights(), str(objective.learned()), history.metrics["train/loss"]))
    assert all(torch.equal(ends[0][0][key], ends[1][0][key]) for key in ends[0][0])
    assert ends[0][1] == ends[1][1]
    pandas.testing.assert_series_equal(ends[0][2], ends[1][2], check_exact=True)


GATED = [case for case in one_problem_each() if isinstance(case.estimator, Calibrates) and case.estimator.gates]
"""Estimators that weigh what they know by held-out runs, which training makes again every so often."""


@pytest.mark.parametrize("case", GATED, ids=lambda case: repr(case.estimator))
@pytest.mark.parametrize("stop", [1, 3, EVERY + 2], ids=lambda stop: f"after {stop}")
def test_gates_are_calibrated_at_the_same_steps(case: Case, stop: int, tmp_path: Path) -> None:
    ends = []
    for stops in ([EVERY + 3], [stop, EVERY + 3]):
        for steps in stops:
            pyro.clear_param_store()
            objective, problem = case.objective, case.problem
            fit(
                objective, problem.model, problem.guide, problem.args, steps=steps, learning_rate=0.01,
                checkpoint=tmp_path / f"{len(stops)}.pt", resume=True,
            )  # fmt: skip
        ends.append(checksum({"weights": weights(), **objective.learned()}))
    assert ends[0] == ends[1]


def test_a_critic_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def train(steps: int, **options: Any) -> list[Tensor]:
        torch.manual_seed(4)
        policy, critic = Policy(), nn.Linear(1, 1)
        fit(ExpectedReturn(ScoreFunction(Critic(critic))), episode, args=(policy,), steps=steps, **options)
        return [leaf.detach() for module in (policy, critic) for leaf in module.parameters()]

    whole = train(10)
    train(4, checkpoint=tmp_path / "run.pt")
    rest = train(10, checkpoint=tmp_path / "run.pt", resume=True)
    assert all(torch.equal(one, other) for one, other in zip(whole, rest, strict=True))
    torch.manual_seed(4)
    assert not torch.equal(rest[-1], [*Policy().parameters(), *nn.Linear(1, 1).parameters()][-1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    ends, tables = [], []
    for stops in ([12], [5, 12], [1, 6, 11, 12]):
        for place, stop in enumerate(stops):
            pyro.clear_param_store()
            objective = ExpectedReturn(ScoreFunction(MovingAverage()), num_particles=2)
            file = tmp_path / f"{len(stops)}.pt"
            history = fit(
                objective,
                program,
                steps=12,
                checkpoint=file,
                resume=place > 0,
                stop_when=lambda metrics, rewards=8 * stop: metrics["time/total_timesteps"] == rewards,
                **OPTIMIZERS[name](),
            )
        assert history.steps == 12
        ends.append((weights(), objective.memory))
        tables.append(history.metrics.drop(columns=[c for c in history.metrics if c.startswith("time/")]))
    for (values, memory), table in zip(ends[1:], tables[1:], strict=True):
        assert all(torch.equal(values[key], ends[0][0][key]) for key in ends[0][0])
        assert str(memory) == str(ends[0][1])
        pandas.testing.assert_frame_equal(table, tables[0], check_exact=True)
