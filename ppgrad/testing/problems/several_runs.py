"""Risk and the best of several runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad
from ppgrad.core import Problem
from ppgrad.objectives import BestOf, CVaR, EntropicRisk, GroupRelative
from ppgrad.testing.problems.common import Parameters, bound_of_two, closed_form, over_tuples, parameters


def _two_steps(
    initial: Mapping[str, object],
) -> tuple[Callable[[], None], Callable[[Parameters], tuple[Tensor, Tensor]]]:
    """Two Bernoulli steps of which the first acts on the second, and their joint probabilities and returns."""

    def model() -> None:
        p = parameters(initial)
        a = ppgrad.policy("a", dist.Bernoulli(logits=p["first"]))
        ppgrad.reward("r_a", 2 * a)
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["second"] + a))
        ppgrad.reward("r_b", b - 3.5 * a * b)

    def table(p: Parameters) -> tuple[Tensor, Tensor]:
        steps = list(itertools.product((0, 1), repeat=2))
        chances = [
            torch.sigmoid(p["first"] * (2 * a - 1)) * torch.sigmoid((p["second"] + a) * (2 * b - 1)) for a, b in steps
        ]
        return torch.stack(chances), torch.tensor([2.0 * a + b - 3.5 * a * b for a, b in steps]) * 1.0

    return model, table


def entropic_risk() -> Problem:
    """Two Bernoulli steps, risk-averse, from two runs."""
    initial = {"first": 0.4, "second": -0.3}

    def model() -> None:
        p = parameters(initial)
        a = ppgrad.policy("a", dist.Bernoulli(logits=p["first"]))
        ppgrad.reward("r_a", 2 * a)
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["second"] + a))
        ppgrad.reward("r_b", b - 3 * a * b)

    def value(p: Parameters) -> Tensor:
        probabilities, returns = [], []
        for a, b in itertools.product((0, 1), repeat=2):
            chance = torch.sigmoid(p["first"] * (2 * a - 1)) * torch.sigmoid((p["second"] + a) * (2 * b - 1))
            probabilities.append(chance)
            returns.append(2.0 * a + b - 3 * a * b)
        return bound_of_two(torch.stack(probabilities), torch.tensor(returns) * 1.0, sharpness=-0.8)

    options = {"num_importance": 2, "beta": -0.8}
    return Problem(model, EntropicRisk, "a risk-averse return", exact=closed_form(initial, value), options=options)


def tail_risk() -> Problem:
    """The worst half of three runs of two Bernoulli steps: the worst, and half of the next."""
    initial = {"first": 0.4, "second": -0.3}
    model, table = _two_steps(initial)

    def value(p: Parameters) -> Tensor:
        chances, returns = table(p)
        return over_tuples(chances, returns, 3, lambda r: (r.sort().values * torch.tensor([1.0, 0.5, 0.0])).sum() / 1.5)

    options = {"num_importance": 3, "level": 0.5}
    return Problem(model, CVaR, "the worst returns", exact=closed_form(initial, value), options=options)


def best_of() -> Problem:
    """The best of two runs of two Bernoulli steps, from three runs."""
    initial = {"first": 0.4, "second": -0.3}
    model, table = _two_steps(initial)

    def value(p: Parameters) -> Tensor:
        chances, returns = table(p)
        return over_tuples(chances, returns, 2, lambda r: r.max())

    options = {"num_importance": 3, "k": 2}
    return Problem(model, BestOf, "the best of two", exact=closed_form(initial, value), options=options)


def group_relative() -> Problem:
    """Two Bernoulli steps under the advantages of a group."""
    initial = {"first": 0.4, "second": -0.3}
    model, table = _two_steps(initial)

    def value(p: Parameters) -> Tensor:
        chances, returns = table(p)
        return (chances * returns).sum()

    return Problem(model, GroupRelative, "advantages of a group", exact=closed_form(initial, value))
