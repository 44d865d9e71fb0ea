"""ELBO(analytic_kl=True): the same bound and the same gradient, with less variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.util import scale_and_mask
from torch.distributions import kl_divergence

import ppgrad
from ppgrad import (
    ELBO,
    DisARM,
    Enumerate,
    InvalidInput,
    LeaveOneOut,
    LocalExpectation,
    Pathwise,
    ScoreFunction,
    StickingTheLanding,
    VarGrad,
)
from ppgrad.engine.checking.ordinary_run import ordinary_run
from ppgrad.objectives._shared.closed_form import divergences
from ppgrad.testing import all_problems
from ppgrad.testing.problems import parameters

FAILURE_RATE = 1e-8
PROBLEMS = all_problems()
INITIAL = {"a": 0.4, "b": [0.2, -0.5], "m": [0.3, -0.8], "w": 0.7}
MASK = torch.tensor([True, False, True])


def chain_model() -> None:
    """A discrete draw, a continuous one that depends on it, a discrete one that depends on that."""
    w = parameters(INITIAL)["w"]
    k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.3)))
    z = pyro.sample("z", dist.Normal(w * k, 1.0))
    c = pyro.sample("c", dist.Categorical(logits=torch.stack([torch.zeros(()), z])))
    pyro.sample("x", dist.Normal(z + c + w, 1.0), obs=torch.tensor(1.3))


def apart_model() -> None:
    """The same sites, their priors independent of each other."""
    w = parameters(INITIAL)["w"]
    pyro.sample("k", dist.Bernoulli(torch.tensor(0.3)))
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    c = pyro.sample("c", dist.Categorical(logits=torch.zeros(2)))
    pyro.sample("x", dist.Normal(z + c + w, 1.0), obs=torch.tensor(1.3))


def chain_guide() -> None:
    p = parameters(INITIAL)
    k = pyro.sample("k", dist.Bernoulli(logits=p["a"]))
    z = pyro.sample("z", dist.Normal(p["m"][0] + p["m"][1] * k, 0.6))
    pyro.sample("c", dist.Categorical(logits=p["b"] * torch.stack([z, k])))


def backward_guide() -> None:
    """The same sites, from the last to the first: p(c | z) depends on what was drawn from c."""
    p = parameters(INITIAL)
    c = pyro.sample("c", dist.Categorical(logits=p["b"]))
    z = pyro.sample("z", dist.Normal(p["m"][0] + p["m"][1] * c, 0.6))
    pyro.sample("k", dist.Bernoulli(logits=p["a"] * z))


def leaving_guide() -> None:
    """A draw leaves torch, and what is drawn next depends on it."""
    p = parameters(INITIAL)
    k = pyro.sample("k", dist.Bernoulli(logits=p["a"]))
    loc = p["m"][0] if k.item() > 0 else p["m"][1]
    z = pyro.sample("z", dist.Normal(loc, 0.6))
    pyro.sample("c", dist.Categorical(logits=p["b"] * torch.stack([z, k])))


def plated_model() -> None:
    with pyro.plate("n", 3), pyro.poutine.scale(scale=0.5), pyro.poutine.mask(mask=MASK):
        k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.3)))
        with pyro.plate("i", 2):
            z = pyro.sample("z", dist.Normal(k.unsqueeze(-1) * torch.tensor([1.0, -1.0]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1) + k, 1.0), obs=torch.ones(2, 3))


def plated_guide() -> None:
    p = parameters(INITIAL)
    with pyro.plate("n", 3), pyro.poutine.scale(scale=0.5), pyro.poutine.mask(mask=MASK):
        k = pyro.sample("k", dist.Bernoulli(logits=p["a"]))
        with pyro.plate("i", 2):
            loc = p["m"] + k.unsqueeze(-1) * torch.ones(2, 3, 2)
            pyro.sample("z", dist.Normal(loc, 0.7).to_event(1))


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "chain": (chain_model, chain_guide),
    "backward": (chain_model, backward_guide),
    "leaving": (apart_model, leaving_guide),
    **{name: (PROBLEMS[name].model, PROBLEMS[name].guide) for name in ("discrete_elbo", "sequential_elbo")},
}
SERVED: dict[str, tuple[ppgrad.Estimator, ppgrad.Estimator]] = {
    "score": (ScoreFunction(), ScoreFunction()),
    "pathwise": (ScoreFunction(LeaveOneOut()), Pathwise()),
    "local": (LocalExpectation(), StickingTheLanding()),
    "disarm": (DisARM(), ScoreFunction()),
    "summed": (Enumerate(), Pathwise()),
}
"""Estimators of discrete sites, and of continuous ones."""


def chosen(served: str) -> ELBO:
    discrete, continuous = SERVED[served]

    def choose(message: Any) -> ppgrad.Estimator:
        if isinstance(discrete, DisARM) and isinstance(message["fn"], dist.Categorical):
            return LocalExpectation()
        return continuous if message["fn"].has_rsample else discrete

    return ELBO(sites=choose, analytic_kl=True, num_particles=2)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_exact_gradient_is_the_same(program: str) -> None:
    model, guide = PROGRAMS[program]
    with_draws = ppgrad.exact_gradient(ELBO(), model, guide)
    closed = ppgrad.exact_gradient(ELBO(analytic_kl=True), model, guide)
    for name, gradient in with_draws.items():
        torch.testing.assert_close(closed[name], gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_estimator_is_unbiased(program: str, served: str) -> None:
    model, guide = PROGRAMS[program]
    exact = ppgrad.exact_gradient(ELBO(), model, guide)
    replicates = 200 if program == "leaving" else 5000
    found = ppgrad.measure(chosen(served), model, guide, replicates=replicates, reference=exact)
    assert all(bool((p > FAILURE_RATE).all()) for p in found.p_value.values())


def test_a_subsampled_plate() -> None:
    problem = PROBLEMS["subsampled_elbo"]
    for estimator in (Pathwise(), ScoreFunction()):
        objective = ELBO(estimator, analytic_kl=True)
        found = ppgrad.measure(objective, problem.model, problem.guide, replicates=10_000, reference=problem.exact())
        assert all(bool((p > FAILURE_RATE).all()) for p in found.p_value.values())


@pytest.mark.parametrize("estimator", [ScoreFunction(), LocalExpectation()], ids=repr)
def test_masks_scales_and_nested_plates_as_in_pyro(estimator: ppgrad.Estimator) -> None:
    objective = ELBO(sites={"k": estimator}, analytic_kl=True)
    objective.prepare(plated_model, plated_guide)
    for seed in range(5):
        pyro.set_rng_seed(seed)
        loss = objective.loss(plated_model, plated_guide)
        pyro.set_rng_seed(seed)
        drawn = pyro.poutine.trace(plated_guide).get_trace()
        replayed = pyro.poutine.trace(pyro.poutine.replay(plated_model, drawn)).get_trace()
        expected = -replayed.log_prob_sum(lambda name, site: name == "x")
        for name in ("k", "z"):
            q, p = drawn.nodes[name], replayed.nodes[name]
            expected = expected + scale_and_mask(kl_divergence(q["fn"], p["fn"]), q["scale"], q["mask"]).sum()
        assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    with_draws = ppgrad.measure(ELBO(sites={"k": Enumerate()}), plated_model, plated_guide, replicates=10_000)
    found = ppgrad.measure(objective, plated_model, plated_guide, replicates=10_000)
    for name in found.mean:
        error = (found.mcse[name] ** 2 + with_draws.mcse[name] ** 2).sqrt()
        z = (found.mean[name] - with_draws.mean[name]) / error.clamp(min=1e-6)
        assert bool((torch.erfc(z.abs() / 2**0.5) > FAILURE_RATE).all())


def test_a_draw_is_not_charged_with_its_own_divergence() -> None:
    """Then nothing is left to the score of a draw that nothing else depends on."""

    def model() -> None:
        pyro.sample("k", dist.Bernoulli(torch.tensor(0.3)))

    def guide() -> None:
        pyro.sample("k", dist.Bernoulli(logits=parameters({"a": 0.4})["a"]))

    found = ppgrad.measure(ELBO(analytic_kl=True), model, guide, replicates=50)
    exact = ppgrad.exact_gradient(ELBO(), model, guide)
    assert float(found.variance["a"]) < 1e-12
    torch.testing.assert_close(found.mean["a"], exact["a"].to(found.mean["a"]))


def test_the_variance_falls() -> None:
    served = {"*": ScoreFunction()}
    with_draws = ppgrad.measure(ELBO(sites=served), chain_model, chain_guide, replicates=5000)
    closed = ppgrad.measure(ELBO(sites=served, analytic_kl=True), chain_model, chain_guide, replicates=5000)
    assert sum(float(v.sum()) for v in closed.variance.values()) < 0.9 * sum(
        float(v.sum()) for v in with_draws.variance.values()
    )


def test_which_sites_have_a_closed_form() -> None:
    def found(model: Callable[..., Any], guide: Callable[..., Any]) -> set[str]:
        executor = ELBO().prepare(model, guide).executor
        return set(divergences(ordinary_run(executor)))

    def scaled_guide() -> None:
        with pyro.poutine.scale(scale=2.0):
            chain_guide()

    def student_model() -> None:
        pyro.sample("z", dist.StudentT(3.0))

    def normal_guide() -> None:
        pyro.sample("z", dist.Normal(parameters(INITIAL)["a"], 1.0))

    assert found(chain_model, chain_guide) == {"k", "z", "c"}
    assert found(chain_model, backward_guide) == {"k"}
    assert found(chain_model, scaled_guide) == set()
    assert found(plated_model, plated_guide) == {"k", "z"}
    assert found(student_model, normal_guide) == set()


@pytest.mark.parametrize(
    ("family", "drawn", "prior"),
    [
        (dist.Bernoulli, [0.0, 0.4, 1.0], [0.4, 0.5, 0.3]),
        (dist.Categorical, [0.0, 0.4, 0.6], [0.2, 0.5, 0.3]),
        (dist.OneHotCategorical, [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]),
    ],
)
def test_no_loop_for_the_want_of_vmap(family: Any, drawn: list[float], prior: list[float]) -> None:
    """PyTorch's divergences write infinities through a mask, which vmap cannot carry as it stands."""
    events = int(family is dist.Bernoulli)

    def model() -> None:
        pyro.sample("k", family(torch.tensor(prior)).to_event(events))

    def guide() -> None:
        lane = pyro.sample("lane", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("k", family(torch.tensor(drawn) + 0.0 * lane).to_event(events))

    expected = sum(q * math.log(q / p) for q, p in zip(drawn, prior, strict=True) if q)
    if family is dist.Bernoulli:
        expected += sum((1 - q) * math.log((1 - q) / (1 - p)) for q, p in zip(drawn, prior, strict=True) if q < 1)
    objective = ELBO(analytic_kl=True, num_particles=3)
    record = objective.prepare(model, guide).executor.execute()[0]
    assert objective.prepare(model, guide).executor.vectorize
    (cost,) = [entry.cost for entry in record.entries if entry.name == "k" and entry.cost is not None]
    torch.testing.assert_close(cost.reshape(-1), torch.full((3,), expected))


def test_bad_input() -> None:
    with pytest.raises(InvalidInput, match="analytic_kl is True or False"):
        ELBO(analytic_kl=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"Write ELBO\(…, analytic_kl=True\)"):
        VarGrad(analytic_kl=True)
