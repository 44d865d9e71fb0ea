"""What `fit` is told: arguments out of range are refused in one line."""

from __future__ import annotations

import functools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.optim import lr_scheduler

import ppgrad
from ppgrad import (
    ExpectedReturn,
    InvalidInput,
    InvalidProgram,
    NaturalGradient,
)
from tests.train.programs import fit, program


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"max_grad_norm": 0}, "max_grad_norm=0"),
        ({"seed": -1}, "seed=-1"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"evaluate_every": 0}, "evaluate_every=0"),
        ({"evaluation_episodes": 0}, "evaluation_episodes=0"),
        ({"resume": True}, "needs a checkpoint"),
        ({"tensorboard": True}, "log_folder="),
        ({"args": 5}, r"args=\(5,\)"),
        ({"kwargs": [1]}, r"kwargs=\[1\].*dict"),
        ({"settings": 3}, "settings=3.*dict"),
        ({"log_folder": 3}, "log_folder=3"),
        ({"checkpoint": 3}, "checkpoint=3"),
        ({"progress": "yes"}, "progress='yes'"),
        ({"evaluation_deterministic": 1}, "evaluation_deterministic=1"),
        ({"critic_optimizer": "adam"}, "critic_optimizer='adam' is no optimizer"),
        ({"optimizer": NaturalGradient}, r"Write NaturalGradient\(program\)"),
        ({"optimizer": functools.partial(NaturalGradient, lr=1.0)}, "write a policy"),
        ({"optimizer": NaturalGradient(program), "learning_rate": 0.1}, "critic_optimizer="),
        ({"evaluate": dict}, "evaluate_every"),
        ({"callbacks": print}, r"callbacks=\[print\]"),
        ({"callbacks": [3]}, r"callbacks\[0\]=3"),
        ({"stop_when": 475}, "stop_when=475"),
        ({"optimizer": "adam"}, "optimizer='adam' is no optimizer"),
        ({"optimizer": dict}, "makes|cannot be made"),
        ({"optimizer": list}, "makes .* none"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)], lr=1.0)}, "does not hold parameter 'loc'"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)], lr=1.0), "learning_rate": 0.1}, "learning_rate=0.1 beside"),
        ({"optimizer": pyro.optim.Adam({"lr": 1.0}), "learning_rate": 0.1}, "learning_rate=0.1 beside a Pyro"),
        ({"optimizer": pyro.optim.Adam({"lr": 1.0}), "schedule": "linear"}, "pyro.optim.ExponentialLR"),
        ({"schedule": "square"}, "constant, linear, cosine"),
        ({"schedule": 3}, "schedule=3"),
        ({"schedule": lr_scheduler.ExponentialLR}, "ExponentialLR cannot be made.*functools.partial"),
        ({"schedule": lambda optimizer: None}, "is no schedule"),
        (
            {"schedule": lr_scheduler.ConstantLR(torch.optim.SGD([torch.zeros(1)], lr=1.0))},
            "belongs to another optimizer",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as error:
        fit(ExpectedReturn(), program, **{"steps": 2, **options})
    assert "\n" not in str(error.value)


def test_no_objective_and_nothing_to_train() -> None:
    with pytest.raises(InvalidInput, match="objective is needed"):
        fit(ExpectedReturn, program, steps=1)

    def constant() -> None:
        ppgrad.cost("f", ppgrad.policy("x", dist.Normal(0.0, 1.0)))

    with pytest.raises(InvalidProgram, match="nothing to train"):
        fit(ExpectedReturn(), constant, steps=1)
