"""Which estimator serves a site: the order of choices."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
from pyro.infer import autoguide

import ppgrad
from ppgrad import (
    ELBO,
    Constant,
    Enumerate,
    ExpectedReturn,
    InvalidAssignment,
    LeaveOneOut,
    Pathwise,
    ScoreFunction,
    config_gradient,
)
from ppgrad.testing.problems import parameters
from tests.objectives.programs import DATA, model


def test_an_autoguides_site_answers_to_the_models_name() -> None:
    auto = autoguide.AutoNormal(model)
    objective = ELBO(sites={"mu": ScoreFunction(LeaveOneOut())}, num_particles=2)
    objective.loss(model, auto, DATA)
    assert ScoreFunction(LeaveOneOut()) in objective.prepare(model, auto, (DATA,)).executor.setup.assignment.used()


def test_the_order_of_choices() -> None:
    chosen = {}

    def program() -> None:
        p = parameters({"l": 0.1})["l"]
        for name in ("a", "b", "c", "d"):
            infer = {"gradient": ScoreFunction(Constant(1.0))} if name in ("a", "b") else {}
            chosen[name] = ppgrad.policy(name, dist.Bernoulli(logits=p), infer=infer)
        ppgrad.reward("r", chosen["a"] + chosen["b"] + chosen["c"] + chosen["d"])

    objective = ExpectedReturn(Enumerate(), sites={"a": ScoreFunction(Constant(2.0))})
    met = objective.prepare(program).executor.setup.assignment
    assert met.used() == [ScoreFunction(Constant(2.0)), ScoreFunction(Constant(1.0)), Enumerate()]
    by_callable = ExpectedReturn(sites=lambda message: Enumerate() if message["name"] == "a" else None)
    used = by_callable.prepare(program).executor.setup.assignment.used()
    assert used == [Enumerate(), ScoreFunction(Constant(1.0)), ScoreFunction()]


@pytest.mark.parametrize("style", ["decorator", "call", "positional"])
def test_config_gradient(style: str) -> None:
    def program() -> None:
        p = parameters({"l": 0.1})["l"]
        a = ppgrad.policy("a", dist.Bernoulli(logits=p))
        b = ppgrad.policy("b", dist.Bernoulli(logits=p), infer={"gradient": ScoreFunction(Constant(1.0))})
        ppgrad.reward("r", a + b)

    if style == "decorator":
        configured = config_gradient(default=Enumerate())(program)
    elif style == "call":
        configured = config_gradient(program, sites={"a": Enumerate()})
    else:
        configured = config_gradient(program, Enumerate())
    used = ExpectedReturn(Pathwise()).prepare(configured).executor.setup.assignment.used()
    assert used == [Enumerate(), ScoreFunction(Constant(1.0))]
    with pytest.raises(InvalidAssignment, match="instance"):
        config_gradient(program, Enumerate)
