"""Contexts that know their own draw, and models that read the guide's draws past their sites."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    ELBO,
    IWELBO,
    Critic,
    Enumerate,
    ExpectedReturn,
    InvalidProgram,
    LeaveOneOut,
    ReadPastSites,
    ScoreFunction,
    Unsupported,
)
from ppgrad.testing.problems import parameters


class Reads(torch.nn.Module):
    """A critic of whatever it is given."""

    def forward(self, context: Any) -> torch.Tensor:
        values = list(context.values()) if isinstance(context, dict) else list(context)
        return torch.stack([torch.as_tensor(value, dtype=torch.float32) for value in values]).sum(0)


def logits() -> torch.Tensor:
    return parameters({"logits": 0.3})["logits"]


def dict_that_is_changed() -> None:
    state = {"x": torch.zeros(())}
    a = ppgrad.policy("a", dist.Bernoulli(logits=logits()), context=state)
    state["x"] = 2 * a + 1
    ppgrad.reward("r", a)


def list_that_grows() -> None:
    history = [torch.zeros(())]
    a = ppgrad.policy("a", dist.Bernoulli(logits=logits()), context=history)
    b = ppgrad.policy("b", dist.Bernoulli(logits=logits() + a), context=[torch.zeros(())])
    c = ppgrad.policy("c", dist.Bernoulli(logits=logits() - b), context=[torch.zeros(())])
    history.append(c)
    ppgrad.reward("r", a * b)


@pytest.mark.parametrize(
    ("program", "path"), [(dict_that_is_changed, "'a' → context"), (list_that_grows, "'a' → 'b' → 'c' → context")]
)
def test_a_context_from_its_own_draw_is_refused_with_the_path(program: Callable[[], None], path: str) -> None:
    with pytest.raises(InvalidProgram, match=rf"Site 'a': its context is computed from its own draw \({path}\)"):
        ppgrad.gradient(ExpectedReturn(ScoreFunction(Critic(Reads()))), program)


def test_a_baseline_value_of_pyros_keys_is_refused_too() -> None:
    def program() -> None:
        keys: dict[str, Any] = {"baseline_value": torch.zeros(())}
        a = pyro.sample("a", dist.Bernoulli(logits=logits()), infer={"baseline": keys})
        keys["baseline_value"] = a
        ppgrad.reward("r", a)

    with pytest.raises(InvalidProgram, match=r"Site 'a'.*'a' → context"):
        ppgrad.gradient(ExpectedReturn(), program)


def test_where_nothing_reads_the_context_it_may_know_anything() -> None:
    def program() -> None:
        state = {"x": torch.zeros(())}
        a = ppgrad.policy("a", dist.Normal(logits(), 1.0), context=state)
        state["x"] = a
        ppgrad.reward("r", a)

    assert ppgrad.gradient(ExpectedReturn(), program)["logits"] == 1.0


def test_earlier_draws_and_tensors_that_are_written_to_afterwards_are_contexts() -> None:
    def program() -> None:
        state = torch.zeros(2)
        a = ppgrad.policy("a", dist.Bernoulli(logits=logits()), context=state)
        state += a
        b = ppgrad.policy("b", dist.Bernoulli(logits=logits() + a), context=state)
        state += b
        ppgrad.reward("r", a + b)

    found = ppgrad.measure(ExpectedReturn(ScoreFunction(Critic(Reads()))), program, replicates=4000)
    assert float(found.p_value["logits"]) > 1e-7


def shared_by_a_variable() -> tuple[Callable[[], None], Callable[[], None]]:
    """z of the guide reaches the likelihood through a variable; the model has a w only."""
    shared: dict[str, torch.Tensor] = {}

    def model() -> None:
        w = pyro.sample("w", dist.Bernoulli(0.4))
        pyro.sample("x", dist.Normal(w + shared["z"], 1.0), obs=torch.tensor(1.7))

    def guide() -> None:
        shared["z"] = pyro.sample("z", dist.Bernoulli(logits=logits()), infer={"is_auxiliary": True})
        pyro.sample("w", dist.Bernoulli(logits=parameters({"other": -0.2})["other"]))

    return model, guide


def exact_of_shared() -> dict[str, torch.Tensor]:
    p = torch.tensor([0.3, -0.2], requires_grad=True)
    bound = torch.zeros(())
    for z in torch.tensor([0.0, 1.0]):
        for w in torch.tensor([0.0, 1.0]):
            log_q = dist.Bernoulli(logits=p[0]).log_prob(z) + dist.Bernoulli(logits=p[1]).log_prob(w)
            likelihood = dist.Normal(w + z, 1.0).log_prob(torch.tensor(1.7))
            bound = bound + log_q.exp() * (dist.Bernoulli(0.4).log_prob(w) + likelihood - log_q)
    (gradient,) = torch.autograd.grad(bound, [p])
    return dict(zip(("logits", "other"), gradient, strict=True))


@pytest.mark.parametrize("estimator", [ScoreFunction(), ScoreFunction(LeaveOneOut()), Enumerate()], ids=repr)
def test_what_the_model_reads_past_its_sites_is_named_and_the_gradient_is_right(estimator: ppgrad.Estimator) -> None:
    objective = ELBO(estimator, num_particles=2)
    with pytest.warns(ReadPastSites, match=r"Site 'x' of the model is computed from the guide's draw 'z'.*before 'x'"):
        found = ppgrad.measure(objective, *shared_by_a_variable(), replicates=4000, reference=exact_of_shared())
    for name, exact in exact_of_shared().items():
        assert float(found.p_value[name]) > 1e-7 or abs(float(found.mean[name] - exact)) < 1e-5


@pytest.mark.parametrize("objective", [ELBO(strict=True), IWELBO(strict=True)], ids=repr)
def test_under_strict_it_is_refused(objective: ppgrad.Objective) -> None:
    with pytest.raises(Unsupported, match="Site 'x' of the model"):
        ppgrad.gradient(objective, *shared_by_a_variable())


def test_through_a_closed_form_and_an_autoguide_nothing_is_read_past_sites() -> None:
    def model() -> None:
        y = pyro.sample("y", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(y, 1.0))
        with pyro.plate("n", 2):
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor([0.2, 1.0]))

    def guide() -> None:
        z = pyro.sample("z", dist.Normal(logits(), 1.0))
        pyro.sample("y", dist.Normal(z, 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("error", ReadPastSites)
        ppgrad.gradient(ELBO(analytic_kl=True), model, guide)
        for automatic in (pyro.infer.autoguide.AutoNormal, pyro.infer.autoguide.AutoMultivariateNormal):
            ELBO().loss(model, automatic(model))
