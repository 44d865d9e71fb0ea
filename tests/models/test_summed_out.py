"""The models whose latents are summed out: against the forward algorithm, in time, and against what draws them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO

import ppgrad
from ppgrad import ELBO, ScoreFunction

Load = Callable[[str], ModuleType]


@pytest.mark.parametrize("settings", [{}, {"steps": 50, "states": 4}, {"steps": 400, "states": 2}], ids=str)
@pytest.mark.parametrize("particles", [1, 2])
def test_a_hidden_markov_model_is_the_forward_algorithm(load: Load, settings: dict[str, Any], particles: int) -> None:
    problem = load("hidden_markov").problem(**settings)
    found = ppgrad.gradient(ELBO(num_particles=particles), problem.model, problem.guide, problem.args)
    for name, value in problem.exact().items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3)


def test_it_is_an_exact_reference_too(load: Load) -> None:
    problem = load("hidden_markov").problem(steps=50, states=4)
    found = ppgrad.exact_gradient(ELBO(), problem.model, problem.guide, problem.args)
    for name, value in problem.exact().items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3)


def operations(steps: int, load: Load) -> int:
    """How many nodes the graph of one loss has."""
    problem = load("hidden_markov").problem(steps=steps)
    seen: set[Any] = set()
    waiting = [ELBO().differentiable_loss(problem.model, problem.guide, *problem.args).grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return len(seen)


def test_the_work_is_linear_in_the_steps(load: Load) -> None:
    few, some, many = (operations(steps, load) for steps in (25, 50, 100))
    assert many - some == pytest.approx(2 * (some - few), rel=0.05)


def test_no_draw_of_a_component_adds_variance(load: Load) -> None:
    summed, drawn = (load("gaussian_mixture").problem(latent=latent) for latent in ("summed", "drawn"))
    measured = [
        ppgrad.measure(ELBO(sites={"z": ScoreFunction()} if one is drawn else None), one.model, one.guide, one.args)
        for one in (summed, drawn)
    ]
    assert float(measured[0].draws["weights"].var(0).sum()) < 0.1 * float(measured[1].draws["weights"].var(0).sum())


def test_pyro_finds_the_same_marginals_of_what_was_fitted(load: Load) -> None:
    """`TraceEnum_ELBO` takes the same model and the same parameters: marginals, posterior samples, `infer_discrete`."""
    problem = load("hidden_markov").problem(steps=5)
    ELBO().loss_and_grads(problem.model, problem.guide, *problem.args)
    marginals = TraceEnum_ELBO(max_plate_nesting=0).compute_marginals(problem.model, problem.guide, *problem.args)
    assert [*marginals] == [f"z_{t}" for t in range(5)]
    best = pyro.infer.infer_discrete(problem.model, first_available_dim=-1, temperature=0)
    trace = pyro.poutine.trace(best).get_trace(*problem.args)
    assert all(trace.nodes[f"z_{t}"]["value"].shape == () for t in range(5))
