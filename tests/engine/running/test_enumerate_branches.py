"""Enumeration: shared and joint branches, product events, budgets."""

from __future__ import annotations

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import Enumerate, ExpectedReturn, InvalidInput
from ppgrad.testing.problems import closed_form, parameters


def test_elements_of_a_plate_share_branches() -> None:
    def model() -> None:
        p = parameters({"logits": torch.linspace(-1, 1, 50)})["logits"]
        with pyro.plate("n", 50):
            a = ppgrad.policy("a", dist.Bernoulli(logits=p))
            b = ppgrad.policy("b", dist.Bernoulli(logits=p + a))
            ppgrad.reward("r", a * b)

    objective = ExpectedReturn(Enumerate())
    found = ppgrad.gradient(objective, model)["logits"]
    assert objective.prepare(model).executor.branches == 4
    initial = {"logits": torch.linspace(-1, 1, 50)}
    exact = closed_form(initial, lambda p: (p["logits"].sigmoid() * (p["logits"] + 1).sigmoid()).sum())()
    torch.testing.assert_close(found, exact["logits"])


def test_a_product_event() -> None:
    initial = {"logits": [0.2, -0.4, 0.9]}

    def model() -> None:
        x = ppgrad.policy("x", dist.Bernoulli(logits=parameters(initial)["logits"]).to_event(1))
        ppgrad.reward("r", (x.sum() - 1) ** 2 * x[0])

    def value(p):
        total = torch.zeros(())
        for x in itertools.product((0.0, 1.0), repeat=3):
            x = torch.tensor(x)
            total = total + torch.sigmoid(p["logits"] * (2 * x - 1)).prod() * (x.sum() - 1) ** 2 * x[0]
        return total

    found = ppgrad.gradient(ExpectedReturn(Enumerate()), model)
    torch.testing.assert_close(found["logits"], closed_form(initial, value)()["logits"])


def test_branches_that_cannot_be_shared_are_counted() -> None:
    def model(size: int) -> None:
        with pyro.plate("n", size):
            x = ppgrad.policy("x", dist.Bernoulli(logits=parameters({"l": 0.1})["l"]))
        ppgrad.reward("r", x.sum())

    objective = ExpectedReturn(Enumerate())
    objective.loss(model, None, 5)
    assert objective.prepare(model, None, (5,)).executor.branches == 32
    with pytest.raises(InvalidInput, match=r"1048576 branches.*'x'.*ScoreFunction"):
        ExpectedReturn(Enumerate()).loss(model, None, 20)


def test_enumeration_has_no_variance() -> None:
    def model() -> None:
        p = parameters({"l": [0.1, -0.3, 0.5]})["l"]
        k = ppgrad.policy("k", dist.Categorical(logits=p))
        ppgrad.reward("r", (k - 1.0) ** 2)

    assert (ppgrad.measure(ExpectedReturn(Enumerate()), model, replicates=10).variance["l"] < 1e-12).all()


def test_pyros_own_flag_is_read() -> None:
    def model() -> None:
        k = ppgrad.policy("k", dist.Bernoulli(logits=parameters({"l": 0.1})["l"]), infer={"enumerate": "parallel"})
        ppgrad.reward("r", k)

    objective = ExpectedReturn()
    assert objective.prepare(model).executor.branches == 2


def test_too_many_branches_name_the_cost_that_couples_them() -> None:
    def chain() -> None:
        logits, z = parameters({"l": torch.zeros(4, 4)})["l"], torch.tensor(0)
        for t in range(12):
            z = ppgrad.policy(f"z_{t}", dist.Categorical(logits=logits[z]))
            ppgrad.reward(f"r_{t}", z)

    with pytest.raises(InvalidInput, match=r"'r_11' depends on 12 of them together: 'z_0', 'z_1', 'z_2', …\. Choose"):
        ppgrad.gradient(ExpectedReturn(Enumerate()), chain)
