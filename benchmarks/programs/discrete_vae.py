"""One gradient of the discrete autoencoder of models/discrete_vae.py: 200 Bernoulli latents, 50 digits.

Storchastic runs the same net on the same digits with the same estimator, but for REBAR: it learns the scale and the
temperature as it goes, which costs a second derivative, and its mean is not the exact gradient, of two Bernoulli
variables and a quadratic cost already.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
from torch import Tensor, nn

import ppgrad
from benchmarks.environments import STORCHASTIC
from benchmarks.models import load
from benchmarks.rivals import by_hand
from benchmarks.rivals.pyro_rollouts import ELBOS
from benchmarks.timing import Burst, Contender, Race
from benchmarks.ways import EAGER, accumulating, backward, ways

MODEL = load("discrete_vae")
BATCH = 50
CASES: dict[str, tuple[ppgrad.Estimator, int]] = {
    "score": (ppgrad.ScoreFunction(), 1),
    "score+loo": (ppgrad.ScoreFunction(ppgrad.LeaveOneOut()), 2),
    "disarm": (ppgrad.DisARM(), 1),
    "rebar": (ppgrad.REBAR(), 1),
}


def races(quick: bool, folder: Path) -> Iterator[Race]:
    images = MODEL.digits()[:BATCH]
    vae = MODEL.autoencoder(MODEL.digits())
    data = folder / "discrete_vae.npz"
    _save(data, vae, images)
    for name, (estimator, particles) in CASES.items():
        args = (vae, images)
        rivals = [
            Contender(
                "Storchastic 0.3.7, biased" if name == "rebar" else "Storchastic 0.3.7",
                lambda name=name, particles=particles: STORCHASTIC.burst(
                    "discrete_vae", data=str(data), estimator=name, particles=particles
                ),
            )
        ]
        if name in ("score", "score+loo"):
            loss = functools.partial(by_hand.discrete_vae, vae, images, particles, name == "score+loo")
            rivals.insert(0, Contender("torch by hand", functools.partial(backward, loss, vae)))
        if name == "score":
            rivals += [Contender(label, functools.partial(_pyro, label, args), against=(EAGER,)) for label in ELBOS]
        yield Race(
            f"discrete VAE gradient, {name}{'' if particles == 1 else f', {particles} particles'}",
            ways(
                functools.partial(ppgrad.ELBO, estimator, num_particles=particles),
                lambda objective: accumulating(objective, MODEL.model, MODEL.guide, vae, images),
                compiled=name == "score+loo" and not quick,
            ),
            rivals,
        )


def _pyro(label: str, args: tuple[Any, ...]) -> Burst:
    def guide(vae: nn.Module, images: Tensor) -> None:
        pyro.module("vae", vae)  # without it Pyro takes no gradient
        MODEL.guide(vae, images)

    return accumulating(ELBOS[label](), MODEL.model, guide, *args)


def _save(path: Path, vae: nn.Module, images: Tensor) -> None:
    arrays = {name: tensor.numpy(force=True) for name, tensor in vae.state_dict().items()}
    np.savez(path, images=images.numpy(), **arrays)
