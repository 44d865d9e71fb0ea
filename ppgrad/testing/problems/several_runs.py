"""Risk and the best of several runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad
from ppgrad.core import Problem
from ppgrad.objectives import BestOf, CVaR, EntropicRisk, GroupRelative, Objective
from ppgrad.testing.problems.common import Parameters, bound_of_two, closed_form, over_tuples, parameters

_INITIAL = {"first": 0.4, "second": -0.3}


def _two_steps(
    objective: type[Objective],
    description: str,
    value: Callable[[Tensor, Tensor], Tensor],
    options: Mapping[str, Any] | None = None,
    both: float = 3.5,
) -> Problem:
    """Two Bernoulli steps of which the first acts on the second.

    Args:
        objective: what is wanted.
        description: what the problem is called.
        value: of the objective, from the probabilities of all that can happen and the returns.
        options: of the objective.
        both: what it costs if both are 1.
    """

    def model() -> None:
        p = parameters(_INITIAL)
        a = ppgrad.policy("a", dist.Bernoulli(logits=p["first"]))
        ppgrad.reward("r_a", 2 * a)
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["second"] + a))
        ppgrad.reward("r_b", b - both * a * b)

    def exact(p: Parameters) -> Tensor:
        steps = list(itertools.product((0, 1), repeat=2))
        chances = [
            torch.sigmoid(p["first"] * (2 * a - 1)) * torch.sigmoid((p["second"] + a) * (2 * b - 1)) for a, b in steps
        ]
        return value(torch.stack(chances), torch.tensor([2.0 * a + b - both * a * b for a, b in steps]))

    return Problem(model, objective, description, exact=closed_form(_INITIAL, exact), options=options or {})


def entropic_risk() -> Problem:
    """Two Bernoulli steps, risk-averse, from two runs."""

    def value(chances: Tensor, returns: Tensor) -> Tensor:
        return bound_of_two(chances, returns, sharpness=-0.8)

    return _two_steps(EntropicRisk, "a risk-averse return", value, {"num_importance": 2, "beta": -0.8}, both=3.0)


def tail_risk() -> Problem:
    """The worst half of three runs of two Bernoulli steps: the worst, and half of the next."""

    def value(chances: Tensor, returns: Tensor) -> Tensor:
        return over_tuples(chances, returns, 3, lambda r: (r.sort().values * torch.tensor([1.0, 0.5, 0.0])).sum() / 1.5)

    return _two_steps(CVaR, "the worst returns", value, {"num_importance": 3, "level": 0.5})


def best_of() -> Problem:
    """The best of two runs of two Bernoulli steps, from three runs."""

    def value(chances: Tensor, returns: Tensor) -> Tensor:
        return over_tuples(chances, returns, 2, lambda r: r.max())

    return _two_steps(BestOf, "the best of two", value, {"num_importance": 3, "k": 2})


def group_relative() -> Problem:
    """Two Bernoulli steps under the advantages of a group."""
    return _two_steps(GroupRelative, "advantages of a group", lambda chances, returns: (chances * returns).sum())
