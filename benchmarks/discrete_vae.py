"""The discrete variational autoencoder of models/discrete_vae.py, trained by each estimator at equal cost.

Each estimator trains the same autoencoder, from the same weights, on the same batches, until the decoder has been
evaluated ``--evaluations`` times on a batch: one that needs two evaluations for a sample takes half as many steps.
Prints the ELBO and the importance-weighted bound of images held out, in nats an image, median over seeds.

    python benchmarks/discrete_vae.py [--evaluations 4000] [--seeds 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import pyro
import torch
from rich.console import Console
from rich.table import Table

import ppgrad
from ppgrad import ELBO, IWELBO, LeaveOneOut, Objective, ScoreFunction

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from discrete_vae import Autoencoder, autoencoder, digits, guide, model

BATCH = 50
HELD_OUT = 500
PARTICLES = 2
ESTIMATORS: dict[str, ppgrad.Estimator] = {
    "score": ScoreFunction(),
    "score+loo": ScoreFunction(LeaveOneOut()),
    "disarm": ppgrad.DisARM(),
    "arm": ppgrad.ARM(),
    "rebar": ppgrad.REBAR(),
    "muprop": ppgrad.MuProp(),
    "double control variate": ppgrad.DoubleControlVariate(),
    "rodeo": ppgrad.Rodeo(),
    "straight-through (biased)": ppgrad.StraightThrough(),
    "gumbel-softmax, hard (biased)": ppgrad.GumbelSoftmax(hard=True),
    "reinmax (biased)": ppgrad.ReinMax(),
}


def trained(objective: Objective, evaluations: int, seed: int) -> tuple[Autoencoder, int, float]:
    """The autoencoder after ``evaluations`` of its decoder; the number of steps and the seconds that took."""
    images = digits()[HELD_OUT:]
    vae = autoencoder(images, seed)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    pyro.set_rng_seed(seed)
    used = steps = 0
    begin = time.perf_counter()
    while used < evaluations:
        batch = images[torch.randint(len(images), (BATCH,))]
        optimizer.zero_grad()
        (objective.differentiable_loss(model, guide, vae, batch) / BATCH).backward()
        optimizer.step()
        used += objective.prepare(model, guide, (vae, batch)).executor.evaluations
        steps += 1
    return vae, steps, time.perf_counter() - begin


def bounds(vae: Autoencoder, seed: int) -> tuple[float, float]:
    """The ELBO and the bound of 50 importance samples, on images held out."""
    images = digits()[:HELD_OUT]
    pyro.set_rng_seed(seed)
    elbo = -ELBO(ScoreFunction(), num_particles=20).loss(model, guide, vae, images) / HELD_OUT
    each = [-IWELBO(ScoreFunction(), num_importance=50).loss(model, guide, vae, image[None]) for image in images[:100]]
    return elbo, statistics.mean(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(
        title=f"{given.evaluations} evaluations of the decoder on {BATCH} digits, median of {given.seeds} seeds"
    )
    for column in ("estimator", "steps", "seconds", "ELBO", "bound of 50"):
        table.add_column(column, justify="left" if column == "estimator" else "right")
    for label, estimator in ESTIMATORS.items():
        rows = []
        for seed in range(given.seeds):
            pyro.clear_param_store()
            vae, steps, seconds = trained(ELBO(estimator, num_particles=PARTICLES), given.evaluations, seed)
            rows.append((steps, seconds, *bounds(vae, seed)))
        steps, seconds, elbo, bound = (statistics.median(column) for column in zip(*rows, strict=True))
        table.add_row(label, f"{steps:.0f}", f"{seconds:.1f}", f"{elbo:.1f}", f"{bound:.1f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
