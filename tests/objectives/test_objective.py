"""Objectives in Pyro's own machinery: SVI, ELBOModule, autoguides, seeds, keywords."""

from __future__ import annotations

import inspect
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer import SVI, Trace_ELBO, autoguide

import ppgrad
from ppgrad import (
    ELBO,
    ExpectedReturn,
)
from ppgrad.testing.problems import parameters
from tests.objectives.programs import DATA, PROBLEMS, model


@pytest.mark.parametrize("name", ["conjugate_elbo", "discrete_elbo", "subsampled_elbo", "normal_plate", "episodes"])
@pytest.mark.parametrize("particles", [1, 3])
def test_one_seed_one_loss(name: str, particles: int) -> None:
    problem = PROBLEMS[name]
    objective = problem.objective(num_particles=particles)
    losses = []
    for method in (objective.loss, objective.differentiable_loss, objective.loss_and_grads):
        pyro.clear_param_store()
        pyro.set_rng_seed(7)
        losses.append(float(torch.as_tensor(method(problem.model, problem.guide)).detach()))
    assert losses[0] == losses[1] == losses[2]
    found = ppgrad.gradient(objective, problem.model, problem.guide, seed=7)
    for parameter, value in pyro.get_param_store().named_parameters():
        torch.testing.assert_close(-value.grad, found[parameter])


@pytest.mark.parametrize("name", ["conjugate_elbo", "discrete_elbo", "subsampled_elbo"])
def test_the_bound_is_trace_elbos(name: str) -> None:
    problem = PROBLEMS[name]
    ELBO().loss(problem.model, problem.guide)
    for seed in range(5):
        pyro.set_rng_seed(seed)
        ours = ELBO().loss(problem.model, problem.guide)
        pyro.set_rng_seed(seed)
        theirs = Trace_ELBO().loss(problem.model, problem.guide)
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_the_gradient_is_trace_elbos_where_both_are_pathwise() -> None:
    problem = PROBLEMS["subsampled_elbo"]
    for loss in (ELBO(), Trace_ELBO()):
        pyro.set_rng_seed(3)
        loss.loss_and_grads(problem.model, problem.guide)
    for name, value in pyro.get_param_store().named_parameters():
        pyro.set_rng_seed(3)
        torch.testing.assert_close(value.grad / 2, -ppgrad.gradient(ELBO(), problem.model, problem.guide)[name])


GUIDES = [
    autoguide.AutoNormal,
    autoguide.AutoMultivariateNormal,
    autoguide.AutoDelta,
    autoguide.AutoLowRankMultivariateNormal,
    autoguide.AutoNormalMessenger,
    autoguide.AutoHierarchicalNormalMessenger,
    autoguide.AutoStructured,
]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.__name__)
def test_svi_with_autoguides(guide: type) -> None:
    auto = guide(model)
    svi = SVI(model, auto, pyro.optim.Adam({"lr": 0.05}), ELBO(num_particles=4))
    for _ in range(300):
        svi.step(DATA)
    pyro.set_rng_seed(0)
    bound = Trace_ELBO(num_particles=500).loss(model, auto, DATA)
    assert bound < 12.5  # minus the log evidence is about 10; a delta guide has no entropy
    assert bound == pytest.approx(svi.evaluate_loss(DATA), abs=5)


def test_elbo_module_trains_with_a_torch_optimizer() -> None:
    pyro.settings.set(module_local_params=True)
    try:
        auto = autoguide.AutoNormal(model)
        loss = ELBO(num_particles=4)(model, auto)
        loss(DATA)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
        before = Trace_ELBO(num_particles=100).loss(model, auto, DATA)
        for _ in range(200):
            optimizer.zero_grad()
            loss(DATA).backward()
            optimizer.step()
        assert Trace_ELBO(num_particles=100).loss(model, auto, DATA) < before - 5
    finally:
        pyro.settings.set(module_local_params=False)


def test_every_keyword_of_pyros_base_class_is_accepted() -> None:
    keywords = set(inspect.signature(PyroELBO.__init__).parameters) - {"self"}
    values = {
        "num_particles": 2,
        "max_plate_nesting": 3,
        "max_iarange_nesting": 3,
        "vectorize_particles": True,
        "strict_enumeration_warning": False,
        "ignore_jit_warnings": True,
        "jit_options": {},
        "retain_graph": True,
        "tail_adaptive_beta": -0.5,
    }
    assert keywords == set(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        objective = ELBO(**values)
    problem = PROBLEMS["conjugate_elbo"]
    objective.loss_and_grads(problem.model, problem.guide)
    assert objective.max_plate_nesting == 3


def test_max_plate_nesting_is_checked() -> None:
    with pytest.raises(ValueError, match="plate stack overflow"):
        ExpectedReturn(max_plate_nesting=0).loss(PROBLEMS["normal_plate"].model, None)


def test_evaluate_loss_and_step_of_svi() -> None:
    problem = PROBLEMS["conjugate_elbo"]
    svi = SVI(problem.model, problem.guide, pyro.optim.Adam({"lr": 0.01}), ELBO())
    assert isinstance(svi.evaluate_loss(), float)
    assert isinstance(svi.step(), float)


def test_rewards_are_log_factors_under_pyros_own_elbos() -> None:
    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(0.0, 1.0))
        ppgrad.reward("r", -(x**2))
        ppgrad.cost("c", x)

    def guide() -> None:
        pyro.sample("x", dist.Normal(parameters({"m": 0.4})["m"], 1.0))

    pyro.set_rng_seed(0)
    theirs = Trace_ELBO().loss(program, guide)
    pyro.set_rng_seed(0)
    assert ELBO().loss(program, guide) == pytest.approx(theirs, rel=1e-5)
