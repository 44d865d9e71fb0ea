"""Observations that are NaN where a distribution reads that as missing: its log-probability decides."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ELBO, NonFinite, Pathwise, ScoreFunction

nan = float("nan")
SINGLE = torch.tensor([0.5, nan, 0.3, nan])
PAIRS = torch.tensor([[0.1, 0.2], [0.5, nan], [nan, nan]])


def single(kind):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("d", 4):
        pyro.sample("x", dist.NanMaskedNormal(m, 1.0), obs=SINGLE)


def pairs(kind):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("d", 3):
        pyro.sample("x", dist.NanMaskedMultivariateNormal(m.expand(3, 2), torch.eye(2)), obs=PAIRS)


def present(kind):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    data = (SINGLE if kind is single else PAIRS).flatten()
    with pyro.plate("d", int(data.isfinite().sum())):
        pyro.sample("x", dist.Normal(m, 1.0), obs=data[data.isfinite()])


def guide(kind):
    pyro.sample("m", dist.Normal(pyro.param("l", torch.tensor(0.3)), 1.0))


@pytest.mark.parametrize("kind", [single, pairs])
@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()])
@pytest.mark.parametrize("particles", [1, 3])
def test_what_is_missing_is_left_out(kind, estimator, particles):
    objective = ELBO(estimator, num_particles=particles)
    missing = ppgrad.gradient(objective, kind, guide, (kind,), seed=0)
    left_out = ppgrad.gradient(objective, present, guide, (kind,), seed=0)
    torch.testing.assert_close(missing, left_out)


def test_elsewhere_nan_is_an_error():
    def model(kind):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("d", 4):
            pyro.sample("x", dist.StudentT(3.0, m, 1.0), obs=SINGLE)

    with pytest.raises((NonFinite, ValueError), match=r"'x'|nan"):
        ppgrad.gradient(ELBO(), model, guide, (None,), seed=0)
