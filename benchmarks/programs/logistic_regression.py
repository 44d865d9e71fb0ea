"""One step of SVI on models/logistic_regression.py, the optimizer's part included: 569 rows, pathwise, Adam."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pyro.infer import Trace_ELBO

import ppgrad
from benchmarks.environments import JAX
from benchmarks.models import load
from benchmarks.rivals import by_hand
from benchmarks.timing import Burst, Contender, Race, in_process
from benchmarks.ways import EAGER, svi, ways

MODEL = load("logistic_regression")
LEARNING_RATE = 1e-3


def races(quick: bool, folder: Path) -> Iterator[Race]:
    args = MODEL.problem().args
    data = folder / "logistic_regression.npz"
    np.savez(data, x=args[0].numpy(), y=args[1].numpy())
    yield Race(
        "logistic regression, SVI step",
        ways(
            functools.partial(ppgrad.ELBO, ppgrad.Pathwise()),
            lambda objective: svi(objective, MODEL.model, MODEL.guide, args, LEARNING_RATE),
            compiled=not quick,
        ),
        [
            Contender("torch by hand", lambda: _by_hand(*args[:2])),
            Contender(
                "Pyro Trace_ELBO",
                lambda: svi(Trace_ELBO(), MODEL.model, MODEL.guide, args, LEARNING_RATE),
                against=(EAGER,),
            ),
            Contender(
                "NumPyro SVI.update + jit",
                lambda: JAX.burst("logistic_regression", data=str(data), learning_rate=LEARNING_RATE),
            ),
        ],
    )


def _by_hand(x: torch.Tensor, y: torch.Tensor) -> Burst:
    loc, log_scale = (torch.zeros(x.shape[-1], requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([loc, log_scale], lr=LEARNING_RATE)

    def step() -> None:
        optimizer.zero_grad()
        loss = by_hand.logistic_regression(x, y, loc, log_scale)
        loss.backward()
        optimizer.step()
        loss.item()

    return in_process(step)
