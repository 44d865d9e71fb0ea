"""Programs that draw from generators of their own, or keep state between runs, run lane by lane."""

import itertools
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ExpectedReturn, Pathwise, ScoreFunction

GENERATOR = np.random.default_rng(0)
PYTHON = random.Random(0)
LEGACY = np.random.RandomState(0)


class Simulator:
    def __init__(self):
        self.rng = np.random.default_rng(1)

    def noise(self):
        return float(self.rng.normal())


SIMULATOR = Simulator()
COUNTER = itertools.count()


def _scipy():
    from scipy import stats

    return float(stats.norm.rvs(random_state=GENERATOR))


NOISES = {
    "Generator": lambda: float(GENERATOR.normal()),
    "Random": lambda: PYTHON.gauss(0.0, 1.0),
    "RandomState": lambda: float(LEGACY.normal()),
    "simulator": lambda: SIMULATOR.noise(),
    "SciPy": lambda: _scipy(),
    "coin": lambda: float(GENERATOR.integers(2)) * 2 - 1,
    "made anew": lambda: float(np.random.default_rng().normal()),
    "seldom": lambda: 10.0 * (PYTHON.random() < 0.01),
    "counter": lambda: 2 * (next(COUNTER) % 2) - 1.0,
}


def _program(noise):
    def program():
        mu = pyro.param("mu", torch.tensor(0.5))
        a = ppgrad.policy("a", dist.Normal(mu, 1.0))
        ppgrad.reward("r", -((a - 3 * noise()) ** 2))

    return program


@pytest.mark.parametrize("kind", NOISES)
def test_every_lane_draws_its_own(kind, caplog):
    objective = ExpectedReturn(Pathwise(), num_particles=4)
    prepared = objective.prepare(_program(NOISES[kind]))
    assert not prepared.executor.vectorize
    assert "runs in a loop" in caplog.text
    with pytest.raises(ppgrad.Unsupported, match="compile=False"):
        ppgrad.gradient(ExpectedReturn(Pathwise(), compile="eager"), _program(NOISES[kind]), seed=0)


def test_its_gradient_is_right():
    truth = {"mu": torch.tensor(-1.0)}
    measured = ppgrad.measure(
        ExpectedReturn(Pathwise()), _program(NOISES["Generator"]), replicates=1500, reference=truth
    )
    assert measured.p_value["mu"].item() > 1e-5
    assert measured.variance["mu"].item() == pytest.approx(40.0, rel=0.4)


def test_rollouts_draw_their_own():
    def fixed():
        ppgrad.policy("a", dist.Delta(torch.tensor(0.0)))
        ppgrad.reward("r", float(GENERATOR.normal()))

    assert len(np.unique(ppgrad.rollouts(fixed, num=16)["rollouts"]["ret"])) == 16


def _torch_noise():
    mu = pyro.param("mu", torch.tensor(0.5))
    first = torch.randn(())
    a = ppgrad.policy("a", dist.Normal(mu, 1.0))
    ppgrad.reward("r", -((a - first - torch.randn(())) ** 2))


def _random_start():
    mu = pyro.param("mu", lambda: torch.randn(()))
    a = ppgrad.policy("a", dist.Normal(mu, 1.0))
    ppgrad.reward("r", -((a - torch.randn(())) ** 2))


def _seeded_inside():
    mu = pyro.param("mu", torch.tensor(0.5))
    data = torch.as_tensor(np.random.default_rng(0).normal(size=3), dtype=torch.float32)
    a = ppgrad.policy("a", dist.Normal(mu, 1.0))
    ppgrad.reward("r", -((a - data) ** 2).sum())


NORMED = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.3), torch.nn.Linear(2, 1)).eval()
CACHE: dict[str, torch.Tensor] = {}


def _normed():
    loc = NORMED(torch.ones(4, 2)).squeeze(-1)
    with pyro.plate("n", 4):
        ppgrad.reward("r", -(ppgrad.policy("a", dist.Normal(loc, 1.0)) ** 2))


def _cached():
    mu = pyro.param("mu", torch.tensor(0.5))
    target = CACHE.setdefault("target", torch.randn(()))
    ppgrad.reward("r", -((ppgrad.policy("a", dist.Normal(mu, 1.0)) - target) ** 2))


@pytest.mark.parametrize("program", [_torch_noise, _random_start, _seeded_inside, _normed, _cached])
@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()])
def test_what_torch_explains_stays_under_vmap(program, estimator):
    prepared = ExpectedReturn(estimator, num_particles=4).prepare(program)
    assert prepared.executor.vectorize
    assert prepared.executor.known.own_state is None
