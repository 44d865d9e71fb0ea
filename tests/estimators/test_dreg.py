"""DReG: its ratio of signal to noise, its seams, what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from scipy import stats

import ppgrad
from ppgrad import (
    ELBO,
    IWELBO,
    REBAR,
    CVaR,
    DisARM,
    DReG,
    ExpectedReturn,
    LocalExpectation,
    MuProp,
    Pathwise,
    RenyiELBO,
    ScoreFunction,
    Unsupported,
)
from ppgrad.baselines import VIMCO
from ppgrad.testing import all_problems
from ppgrad.testing.problems import parameters

FAILURE_RATE = 1e-7
PROBLEMS = all_problems()
DATA = (0.5, -1.0, 2.0, 0.0, 1.0)


def model() -> None:
    with pyro.plate("d", 5):
        z = pyro.sample("z", dist.Normal(torch.zeros(5), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(DATA) * 1.0)


def guide() -> None:
    """The posterior is N(x / 2, ½); this is near it, as in Rainforth et al. (2018), section 4."""
    p = parameters({"b": [0.35, -0.4, 1.1, 0.1, 0.6]})
    with pyro.plate("d", 5):
        pyro.sample("z", dist.Normal(p["b"], 0.8))


def test_the_ratio_of_signal_to_noise_grows_with_the_samples() -> None:
    ratios = {}
    for estimator in (Pathwise(), DReG()):
        for samples in (1, 16, 64):
            found = ppgrad.measure(IWELBO(estimator, num_importance=samples), model, guide, replicates=2000)
            ratios[repr(estimator), samples] = float(found.snr["b"].mean())
    # By 4 = √16 from 1 to 16 for large K; the plain one falls by as much.
    assert ratios["DReG()", 16] > 1.5 * ratios["DReG()", 1]
    assert ratios["DReG()", 64] > 1.5 * ratios["DReG()", 16]
    assert ratios["Pathwise()", 16] < ratios["Pathwise()", 1] / 1.5
    assert ratios["Pathwise()", 64] < ratios["DReG()", 64] / 10


@pytest.mark.parametrize("name", ["importance_mixed", "importance_hierarchical"])
@pytest.mark.parametrize(
    "discrete", [ScoreFunction(VIMCO()), LocalExpectation(), DisARM(), REBAR(), MuProp()], ids=repr
)
def test_beside_any_estimator_of_a_discrete_site(name: str, discrete: ppgrad.Estimator) -> None:
    check_mean(name, 20_000, {"z" if name == "importance_mixed" else "k": discrete})


@pytest.mark.parametrize("alpha", [-0.6, 0.0, 0.5])
@pytest.mark.parametrize("continuous", [DReG(), Pathwise()], ids=repr)
def test_a_relaxed_branch_knows_the_parameters_that_its_value_acts_on(
    continuous: ppgrad.Estimator, alpha: float
) -> None:
    """The relaxed b moves the mean and the scale of x, so that all of log q(x | b) is part of the branch's slope."""

    def mixed() -> None:
        b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.4)))
        x = pyro.sample("x", dist.Normal(1.5 * b, 1.0))
        pyro.sample("y", dist.Normal(x, 0.5), obs=torch.tensor(1.2))

    def proposal() -> None:
        b = pyro.sample("b", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        pyro.sample("x", dist.Normal(2 * b - 0.5, 0.2 + 0.8 * b))

    objective = RenyiELBO(sites={"b": REBAR(), "x": continuous}, alpha=alpha, num_importance=2)
    exact = {"logit": _exact_bound_of_two(alpha)}
    found = ppgrad.measure(objective, mixed, proposal, replicates=20_000, reference=exact)
    assert float(found.p_value["logit"]) > FAILURE_RATE


def _exact_bound_of_two(alpha: float) -> torch.Tensor:
    """The gradient of the Rényi bound of two samples, by Gauss–Hermite quadrature."""
    points, weights = (torch.tensor(a) for a in np.polynomial.hermite_e.hermegauss(120))
    logit = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    chances, log_weights = [], []
    for b, q, prior in ((0.0, 1 - logit.sigmoid(), 0.6), (1.0, logit.sigmoid(), 0.4)):
        guide_x = stats.norm(2 * b - 0.5, 0.2 + 0.8 * b)
        x = 2 * b - 0.5 + (0.2 + 0.8 * b) * points
        log_joint = stats.norm.logpdf(x, 1.5 * b, 1.0) + stats.norm.logpdf(1.2, x, 0.5) - guide_x.logpdf(x)
        chances.append(q * weights / weights.sum())
        log_weights.append(torch.tensor(log_joint) + math.log(prior) - q.log())
    p, w = torch.cat(chances), (1 - alpha) * torch.cat(log_weights)
    bound = p @ (torch.logaddexp(w[:, None], w[None]) - math.log(2)) @ p / (1 - alpha)
    return torch.autograd.grad(bound, logit)[0].float()


def test_in_a_loop() -> None:
    check_mean("importance_hierarchical", 400, {"k": ScoreFunction(VIMCO())}, vectorize_particles=False)


def check_mean(name: str, replicates: int, sites: dict[str, ppgrad.Estimator], **options: bool) -> None:
    problem = PROBLEMS[name]
    objective = IWELBO(DReG(), sites=sites, **options, **problem.options)
    found = ppgrad.measure(objective, problem.model, problem.guide, replicates=replicates, reference=problem.exact())
    components = sum(p.numel() for p in found.p_value.values())
    assert all(bool((p > FAILURE_RATE / components).all()) for p in found.p_value.values())


def test_one_sample_is_the_elbos_sticking_the_landing() -> None:
    def posterior() -> None:
        p = parameters({"m": 0.5 * torch.tensor(DATA), "s": 0.5**0.5})
        with pyro.plate("d", 5):
            pyro.sample("z", dist.Normal(p["m"], p["s"]))

    for objective in (ELBO(DReG()), IWELBO(DReG(), num_importance=1)):
        found = ppgrad.measure(objective, model, posterior, replicates=100)
        for variance in found.variance.values():
            assert float(variance.max()) < 1e-10
    plain = ppgrad.measure(ELBO(Pathwise()), model, posterior, replicates=2000)
    assert stats.norm.sf(abs(float(plain.variance["m"][0]) - 2) / float(plain.variance_mcse["m"][0])) > FAILURE_RATE


def test_its_value_is_the_bound() -> None:
    losses = []
    for estimator in (Pathwise(), DReG()):
        objective = IWELBO(estimator, num_importance=4)
        objective.prepare(model, guide)
        pyro.set_rng_seed(5)
        losses.append(objective.loss(model, guide))
        pyro.set_rng_seed(5)
        losses.append(float(objective.differentiable_loss(model, guide).detach()))
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)


def test_an_autoguide() -> None:
    """Its Delta sites are computed from the draws again, and carry no parameter of their own."""

    def positive() -> None:
        z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.5))

    auto = pyro.infer.autoguide.AutoNormal(positive, init_scale=0.7)
    auto()
    plain = ppgrad.measure(IWELBO(Pathwise(), num_importance=4, num_particles=8), positive, auto, replicates=2000)
    twice = ppgrad.measure(IWELBO(DReG(), num_importance=4, num_particles=8), positive, auto, replicates=2000)
    for name, mean in twice.mean.items():
        z = (mean - plain.mean[name]) / (twice.mcse[name] ** 2 + plain.mcse[name] ** 2).sqrt()
        assert 2 * stats.norm.sf(abs(float(z))) > FAILURE_RATE
        assert float(twice.variance[name]) < float(plain.variance[name])


def test_refusals() -> None:
    chain, mixed = PROBLEMS["normal_chain"], PROBLEMS["importance_hierarchical"]
    for objective in (ExpectedReturn(DReG()), CVaR(DReG(), level=0.5)):
        with pytest.raises(Unsupported, match=r"no weights p / q of a guide; IWELBO"):
            ppgrad.gradient(objective, chain.model)
    with pytest.raises(Unsupported, match="Bernoulli has no reparameterized sample"):
        ppgrad.gradient(IWELBO(DReG(), sites={"k": DReG()}), mixed.model, mixed.guide)
    with pytest.raises(Unsupported, match="DReG at site 'v' and Pathwise at site 'y' cannot share a bound"):
        ppgrad.gradient(IWELBO(sites={"v": DReG(), "y": Pathwise()}), mixed.model, mixed.guide)

    def scaled() -> None:
        with poutine.scale(scale=2.0):
            guide()

    with pytest.raises(Unsupported, match="'z': it is masked or scaled"):
        ppgrad.gradient(IWELBO(DReG()), model, scaled)
