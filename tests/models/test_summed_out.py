"""The models whose latents are summed out: against the forward algorithm, in time, and against what draws them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from pyro.optim import Adam

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


def test_classes_of_digits_that_have_none(load: Load) -> None:
    """The sum over classes, written out: under one seed the same draws, and the same gradient."""
    module = load("semi_supervised")
    problem = module.problem(labelled=5, unlabelled=4)

    def written_out(vae: Any, labelled: torch.Tensor, classes: torch.Tensor, unlabelled: torch.Tensor, _: str) -> None:
        prior = dist.Normal(torch.zeros(module.LATENT), 1.0).to_event(1)
        with pyro.plate("labelled", len(labelled)):
            h = pyro.sample("h_labelled", prior)
            pyro.sample("y_labelled", dist.Categorical(logits=vae.prior), obs=classes)
            pyro.sample("x_labelled", vae.decode(h, classes), obs=labelled)
        with pyro.plate("unlabelled", len(unlabelled)):
            h = pyro.sample("h", prior)
            terms = [vae.decode(h, torch.tensor(y)).log_prob(unlabelled) for y in range(10)]
            pyro.factor("x", (torch.stack(terms) + vae.prior.log_softmax(-1).unsqueeze(-1)).logsumexp(0))

    found, wanted = (
        ppgrad.gradient(ELBO(num_particles=2), model, problem.guide, problem.args, seed=1)
        for model in (problem.model, written_out)
    )
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("latent", ["summed", "drawn"])
def test_digits_are_learned_from_few_labels(load: Load, latent: str) -> None:
    module = load("semi_supervised")
    problem = module.problem(labelled=100, unlabelled=100, latent=latent)
    vae, images, classes = problem.args[0], *module.digits()
    svi = SVI(problem.model, problem.guide, Adam({"lr": 0.01}), ELBO())
    for _ in range(100):
        svi.step(*problem.args)
    assert module.accuracy(vae, images[200:700], classes[200:700]) > 0.5
