"""Noise that is drawn up front."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    DisARM,
    ExpectedReturn,
    ScoreFunction,
)
from ppgrad.core.generators import generator_state
from ppgrad.engine.compiling.noise import Kind, drawing_up_front
from ppgrad.testing import SUITE_FAILURE_RATE
from tests.engine.compiling.programs import TRACED

LAWS: list[dist.TorchDistribution] = [
    dist.Normal(0.3, 2.0),
    dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 2.0]])),
    dist.Uniform(-1.0, 2.0),
    dist.Exponential(3.0),
    dist.Laplace(1.0, 0.5),
    dist.Gumbel(0.0, 2.0),
    dist.LogNormal(0.1, 0.4),
    dist.HalfCauchy(2.0),
    dist.Geometric(torch.tensor(0.3)),
    dist.Bernoulli(torch.tensor(0.2)),
    dist.Categorical(torch.tensor([0.2, 0.0, 0.5, 0.3])),
    dist.OneHotCategorical(torch.tensor([0.2, 0.5, 0.3])),
    dist.RelaxedBernoulli(torch.tensor(0.5), torch.tensor(0.3)),
]


@pytest.mark.parametrize("fn", LAWS, ids=lambda fn: type(fn).__name__)
def test_noise_up_front_has_the_law_of_torchs_own(fn: dist.TorchDistribution) -> None:
    from scipy.stats import ks_2samp

    kinds = [Kind(law, torch.float32, torch.device("cpu")) for law in ("normal", "uniform")]
    torch.manual_seed(0)
    own = fn.sample((20_000,))
    with drawing_up_front({kind: kind.draw(200_000) for kind in kinds}) as noise:
        served = fn.sample((20_000,))
    assert sum(noise.counts().values()) >= 20_000
    assert served.dtype == own.dtype
    assert served.shape == own.shape
    for one, other in zip(own.reshape(20_000, -1).T, served.reshape(20_000, -1).T, strict=True):
        assert ks_2samp(one.numpy(), other.numpy()).pvalue > SUITE_FAILURE_RATE / 100


def test_the_same_noise_again_from_a_remembered_position() -> None:
    kind = Kind("normal", torch.float32, torch.device("cpu"))
    with drawing_up_front({kind: kind.draw(10)}) as noise:
        start = generator_state()
        first = torch.randn(4)
        end = noise.position()
        noise.go_back(start)
        assert torch.equal(torch.randn(4), first)
        noise.go_back(end)
        assert not torch.equal(torch.randn(4), first)
        assert noise.counts() == {kind: 8}


def test_noise_that_cannot_be_drawn_up_front_is_not_reused() -> None:
    def counts() -> None:
        rate = pyro.param("rate", torch.tensor(2.0))
        n = ppgrad.policy("n", dist.Poisson(rate))
        k = ppgrad.policy("k", dist.Bernoulli(torch.sigmoid(rate)))
        ppgrad.cost("f", n * k)

    sites = {"n": ScoreFunction(), "k": DisARM()}
    with pytest.raises(ppgrad.Unsupported, match="poisson cannot be drawn up front"):
        ppgrad.gradient(ExpectedReturn(sites=sites, compile=TRACED), counts, seed=0)
    ppgrad.gradient(ExpectedReturn(ScoreFunction(), compile=TRACED), counts, seed=0)
