"""DReG: its ratio of signal to noise, its seams, what it refuses."""

from __future__ import annotations

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
    CVaR,
    DisARM,
    DReG,
    ExpectedReturn,
    LocalExpectation,
    Pathwise,
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
@pytest.mark.parametrize("discrete", [ScoreFunction(VIMCO()), LocalExpectation(), DisARM()], ids=repr)
def test_beside_any_estimator_of_a_discrete_site(name: str, discrete: ppgrad.Estimator) -> None:
    check_mean(name, 20_000, {"z" if name == "importance_mixed" else "k": discrete})


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
