"""Logistic regression trained in Pyro's own SVI, by pathwise and by the score function."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pyro
import pytest
import torch

from ppgrad import ELBO, LeaveOneOut, Pathwise, ScoreFunction

BEST = -67.4633
TRAINING = {
    "pathwise": (lambda: ELBO(Pathwise()), 2000),
    "score": (lambda: ELBO(ScoreFunction(LeaveOneOut()), num_particles=64), 1500),
}


@pytest.mark.proof
@pytest.mark.parametrize("estimator", TRAINING)
def test_trains_to_within_one_nat(load: Callable[[str], ModuleType], estimator: str) -> None:
    module = load("logistic_regression")
    objective, steps = TRAINING[estimator]
    start = torch.zeros(31)
    assert float(module.exact_elbo(start, start)) == pytest.approx(-1226.6, abs=0.3)
    pyro.set_rng_seed(0)
    losses: list[float] = []
    found = module.train(objective(), steps, each=lambda step, loss: losses.append(loss))
    elbo = float(module.exact_elbo(**found))
    assert BEST - 1 < elbo <= BEST + 1e-3
    assert module.accuracy(found["loc"]) >= 0.98
    assert len(losses) == steps
