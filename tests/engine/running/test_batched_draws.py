"""Distributions whose draws torch's vmap does not know are drawn under it all the same, each lane by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import TorchDistribution
from scipy import stats
from torch import Tensor
from torch.distributions import dirichlet, von_mises

import ppgrad
from ppgrad import ExpectedReturn
from ppgrad.testing import SUITE_FAILURE_RATE

FAMILIES: dict[str, Callable[[Tensor], TorchDistribution]] = {
    "Beta": lambda a: dist.Beta(a, 2.0),
    "AffineBeta": lambda a: dist.AffineBeta(a, 2.0, -1.0, 3.0),
    "Beta of an event": lambda a: dist.Beta(torch.stack([a, 2 * a]), 2.0).to_event(1),
    "Dirichlet": lambda a: dist.Dirichlet(torch.stack([a, 2 * a, torch.ones(())])),
    "DirichletMultinomial": lambda a: dist.DirichletMultinomial(torch.stack([a, torch.ones(())]), 5),
    "BetaBinomial": lambda a: dist.BetaBinomial(a, 2.0, 5),
    "LKJCholesky": lambda a: dist.LKJCholesky(3, a),
    "Multinomial": lambda a: dist.Multinomial(5, torch.stack([a, torch.ones(())])),
    "VonMises": lambda a: dist.VonMises(a - 1, a),
    "VonMises of one concentration": lambda a: dist.VonMises(torch.stack([a, -a]), 2.0).to_event(1),
}


def program_of(family: str) -> Callable[[], None]:
    def program() -> None:
        x = ppgrad.policy("x", FAMILIES[family](pyro.param("a", torch.tensor(1.5)))).float().reshape(-1)
        ppgrad.reward("r", (x * torch.arange(1.0, 1 + len(x))).cos().sum())

    return program


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gradient_under_vmap_is_that_of_the_loop(family: str, caplog: pytest.LogCaptureFixture) -> None:
    program = program_of(family)
    with caplog.at_level(logging.WARNING, "ppgrad"):
        lanes = ppgrad.measure(ExpectedReturn(), program, replicates=4000, seed=1)
    assert not caplog.records
    loop = ppgrad.measure(ExpectedReturn(vectorize_particles=False), program, replicates=300, seed=2)
    error = (lanes.mcse["a"] ** 2 + loop.mcse["a"] ** 2).sqrt()
    assert 2 * stats.norm.sf(abs(lanes.mean["a"] - loop.mean["a"]) / error) > SUITE_FAILURE_RATE / len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_lanes_share_no_draw(family: str) -> None:
    def program() -> None:  # of numbers, so that nothing but the draw can depend on the lane
        x = ppgrad.policy("x", FAMILIES[family](torch.tensor(1.5))).float()
        scale = pyro.param("scale", torch.ones(()))
        ppgrad.reward("r", scale * (x * torch.arange(1.0, 1 + x.numel()).reshape(x.shape)).sum())

    draws = ppgrad.measure(ExpectedReturn(), program, replicates=50).draws["scale"]
    assert len(draws.unique()) > 2
    assert draws.var() > 0


NEAR: dict[str, Callable[[Tensor], TorchDistribution]] = {
    "Beta": lambda u: dist.Beta(1e6 * u, 1e6 * (1 - u)),
    "Dirichlet": lambda u: dist.Dirichlet(1e6 * torch.stack([u, 1 - u])),
    "VonMises": lambda u: dist.VonMises(u, 1e6),
}


@pytest.mark.parametrize("family", NEAR)
def test_each_lane_draws_by_its_own_parameters(family: str) -> None:
    def program() -> None:
        u = pyro.sample("u", dist.Uniform(0.2, 0.8))
        x = ppgrad.policy("x", NEAR[family](u * pyro.param("one", torch.ones(())))).reshape(-1)[0]
        ppgrad.cost("f", (x - u).abs())

    assert 0 < ExpectedReturn(ppgrad.ScoreFunction(), num_particles=50).loss(program, None) < 0.01


def test_torchs_own_draws_are_put_back() -> None:
    before = dirichlet._Dirichlet, von_mises._rejection_sample
    ppgrad.gradient(ExpectedReturn(num_particles=2), program_of("Beta"), seed=0)
    assert (dirichlet._Dirichlet, von_mises._rejection_sample) == before


def test_a_mask_chooses_what_is_written(caplog: pytest.LogCaptureFixture) -> None:
    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0).to_event(1))
        kept = x.clone()
        kept[x < 0] = 0.0
        ppgrad.reward("r", kept.sum())

    with caplog.at_level(logging.WARNING, "ppgrad"):
        measured = ppgrad.measure(ExpectedReturn(ppgrad.Pathwise()), program, replicates=4000)
    assert not caplog.records
    error = (measured.mean["loc"] - 0.5).abs() / measured.mcse["loc"]
    assert 2 * stats.norm.sf(float(error.max())) * 3 > SUITE_FAILURE_RATE
