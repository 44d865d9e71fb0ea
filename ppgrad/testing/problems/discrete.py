"""Expected returns of discrete sites."""

from __future__ import annotations

import itertools

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad
from ppgrad.core import Problem
from ppgrad.objectives import ExpectedReturn
from ppgrad.testing.problems.common import Parameters, closed_form, parameters


def bernoulli_chain() -> Problem:
    """Three dependent layers: Bernoulli, Categorical, Bernoulli, with costs in between."""
    initial = {"first": 0.3, "second": [[0.1, -0.5, 0.4], [-0.2, 0.3, 0.6]], "third": [0.5, -0.1, -0.7]}

    def model() -> None:
        p = parameters(initial)
        a = ppgrad.policy("a", dist.Bernoulli(logits=p["first"]))
        ppgrad.reward("r_a", a * 0.5)
        b = ppgrad.policy("b", dist.Categorical(logits=p["second"].index_select(0, a.long().reshape(1)).squeeze(0)))
        ppgrad.cost("f_b", (b - a) ** 2)
        logit = p["third"].index_select(0, b.reshape(1)).squeeze(0) + a
        c = ppgrad.policy("c", dist.Bernoulli(logits=logit))
        ppgrad.reward("r_c", c * b - 2 * c * a)

    def value(p: Parameters) -> Tensor:
        total = torch.zeros(())
        for a, b, c in itertools.product((0, 1), (0, 1, 2), (0, 1)):
            probability = torch.sigmoid(p["first"] * (2 * a - 1)) * p["second"][a].softmax(-1)[b]
            probability = probability * torch.sigmoid((p["third"][b] + a) * (2 * c - 1))
            total = total + probability * (a * 0.5 - (b - a) ** 2 + c * b - 2 * c * a)
        return total

    return Problem(model, ExpectedReturn, "a discrete chain", exact=closed_form(initial, value))


def coupled_plate() -> Problem:
    """b_n ~ Bernoulli in a plate; a cost outside the plate that couples its elements, one inside."""
    initial = {"logits": [0.3, -0.2, 0.8]}

    def model() -> None:
        p = parameters(initial)
        with pyro.plate("n", 3):
            b = ppgrad.policy("b", dist.Bernoulli(logits=p["logits"]), context=torch.arange(3))
            ppgrad.reward("inside", b * torch.tensor([1.0, 2.0, -1.0]))
        ppgrad.cost("outside", (b.sum(-1) - 1) ** 2)

    def value(p: Parameters) -> Tensor:
        total = torch.zeros(())
        for b in itertools.product((0.0, 1.0), repeat=3):
            values = torch.tensor(b)
            probability = torch.sigmoid(p["logits"] * (2 * values - 1)).prod()
            reward = (values * torch.tensor([1.0, 2.0, -1.0])).sum() - (values.sum() - 1) ** 2
            total = total + probability * reward
        return total

    return Problem(model, ExpectedReturn, "plate elements coupled", exact=closed_form(initial, value))


def poisson() -> Problem:
    """n ~ Poisson(λ); r = −(n − 2)², J = −λ − (λ − 2)²."""
    initial = {"rate": 1.3}

    def model() -> None:
        p = parameters(initial)
        n = ppgrad.policy("n", dist.Poisson(p["rate"]))
        ppgrad.cost("f", (n - 2) ** 2)

    def value(p: Parameters) -> Tensor:
        return -p["rate"] - (p["rate"] - 2) ** 2

    return Problem(model, ExpectedReturn, "an infinite support", exact=closed_form(initial, value))


def categoricals() -> Problem:
    """x_n ~ Categorical in a plate; a cost of each and one that couples them."""
    initial = {"logits": [[0.3, -0.6, 0.1, 0.8], [-0.2, 0.5, 1.2, -1.0]]}
    gains = [0.5, -1.0, 2.0, 0.3]

    def model() -> None:
        p, table = parameters(initial), torch.tensor(gains) * 1.0
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.Categorical(logits=p["logits"]))
            ppgrad.reward("inside", table.index_select(0, x))
        ppgrad.cost("outside", (x.sum(-1) - 2) ** 2)

    def value(p: Parameters) -> Tensor:
        log_q, total = p["logits"].log_softmax(-1), torch.zeros(())
        for a, b in itertools.product(range(4), repeat=2):
            total = total + (log_q[0, a] + log_q[1, b]).exp() * (gains[a] + gains[b] - (a + b - 2) ** 2)
        return total

    return Problem(model, ExpectedReturn, "Categorical sites, coupled", exact=closed_form(initial, value))


def one_hot() -> Problem:
    """x_i ~ OneHotCategorical, two of them in one event; f = (c·x₀)(c·x₁)."""
    initial = {"logits": [[0.3, -0.6, 0.1], [-0.2, 0.5, 1.2]]}
    gains = [0.5, -1.0, 2.0]

    def model() -> None:
        x = ppgrad.policy("x", dist.OneHotCategorical(logits=parameters(initial)["logits"]).to_event(1))
        ppgrad.cost("f", (x @ (torch.tensor(gains) * 1.0)).prod(-1))

    def value(p: Parameters) -> Tensor:
        return -(p["logits"].softmax(-1) @ torch.tensor(gains)).prod()

    return Problem(model, ExpectedReturn, "one-hot values", exact=closed_form(initial, value))


def binomial() -> Problem:
    """n ~ Binomial(3, p); f = (n − 1)², J = −np(1 − p) − (np − 1)²."""
    initial = {"logit": 0.4}

    def model() -> None:
        n = ppgrad.policy("n", dist.Binomial(3, logits=parameters(initial)["logit"]))
        ppgrad.cost("f", (n - 1) ** 2)

    def value(p: Parameters) -> Tensor:
        q = torch.sigmoid(p["logit"])
        return -3 * q * (1 - q) - (3 * q - 1) ** 2

    return Problem(model, ExpectedReturn, "a Binomial site", exact=closed_form(initial, value))


def geometric() -> Problem:
    """n ~ Geometric(p), the number of failures; f = n², J = −(1 − p)(2 − p) / p²."""
    initial = {"p": 0.6}

    def model() -> None:
        ppgrad.cost("f", ppgrad.policy("n", dist.Geometric(parameters(initial)["p"])) ** 2)

    def value(p: Parameters) -> Tensor:
        return -(1 - p["p"]) * (2 - p["p"]) / p["p"] ** 2

    return Problem(model, ExpectedReturn, "a Geometric site", exact=closed_form(initial, value))


def vectors_in_masks() -> Problem:
    """Bernoulli vectors masked from outside, in a plate; a matrix with a mask between two calls of ``to_event``."""
    initial = {"logits": [[0.3, -0.5], [0.8, 0.1]]}
    signs = [1.0, -2.0]

    def model() -> None:
        p = parameters(initial)
        with pyro.plate("n", 2):
            fn = dist.Bernoulli(logits=p["logits"]).to_event(1).mask(torch.tensor([True, False]))
            b = ppgrad.policy("b", fn)
            ppgrad.cost("f", (b.sum(-1) - 1) ** 2 * (torch.tensor(signs) + b[..., 0]))
        c = ppgrad.policy(
            "c", dist.Bernoulli(logits=p["logits"]).to_event(1).mask(torch.tensor([True, False])).to_event(1)
        )
        ppgrad.cost("g", (c.sum(-1).sum(-1) - 1.4) ** 2)

    def value(p: Parameters) -> Tensor:
        q, total = torch.sigmoid(p["logits"]), torch.zeros(())
        for b in itertools.product((0.0, 1.0), repeat=2):
            values = torch.tensor(b)
            chances = (q * values + (1 - q) * (1 - values)).prod(-1)
            total = total - (chances * (values.sum() - 1) ** 2 * (torch.tensor(signs) + values[0])).sum()
        return total - (q.sum() - 1.4) ** 2 - (q * (1 - q)).sum()

    return Problem(model, ExpectedReturn, "vectors in masks", exact=closed_form(initial, value))


def nested_events() -> Problem:
    """One-hot values: an Independent of an Independent, masked, in a plate whose elements a cost couples."""
    initial = {"logits": [[0.3, -0.6, 0.1], [-0.2, 0.5, 1.2]]}
    gains = [0.5, -1.0, 2.0]

    def model() -> None:
        logits = parameters(initial)["logits"].reshape(1, 2, 1, 3).expand(2, 2, 1, 3)
        one_hot_values = dist.OneHotCategorical(logits=logits)
        with pyro.plate("n", 2):
            fn = dist.Independent(dist.Independent(one_hot_values, 1), 1).mask(True)
            x = ppgrad.policy("x", fn)
        ppgrad.cost("f", (x @ (torch.tensor(gains) * 1.0)).prod(-1).prod(-1).prod(-1))

    def value(p: Parameters) -> Tensor:
        return -((p["logits"].softmax(-1) @ torch.tensor(gains)).prod() ** 2)

    return Problem(model, ExpectedReturn, "events in events", exact=closed_form(initial, value))


def masked_out() -> Problem:
    """A mask on all of a discrete draw leaves its score alone; f = (Σ b − 1)²."""
    initial = {"logits": [0.4, -0.7]}

    def model() -> None:
        b = ppgrad.policy("b", dist.Bernoulli(logits=parameters(initial)["logits"]).mask(False).to_event(1))
        ppgrad.cost("f", (b.sum(-1) - 1) ** 2 * 0.5)

    def value(p: Parameters) -> Tensor:
        q = torch.sigmoid(p["logits"])
        return -0.5 * ((q.sum() - 1) ** 2 + (q * (1 - q)).sum())

    return Problem(model, ExpectedReturn, "a draw that is masked out", exact=closed_form(initial, value))
