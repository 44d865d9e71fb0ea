"""An edge of each kind is dropped from the record: the mean of the gradient is found to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import ELBO, ScoreFunction
from ppgrad.engine.dependence.dependence import Dependence
from ppgrad.engine.running.followed import Marking
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters
from tests.engine.dependence.by_enumeration import exact_gradient

FAILURE_RATE = SUITE_FAILURE_RATE / 100


@dataclass(frozen=True)
class Edge:
    """Programs, and the edge of them to drop: from the draw ``source`` to a site of the guide or of the model.

    Args:
        body: of the model, given the replayed draws.
        of_b: the guide's logits of b, given a and the parameter.
        source, target: names.
        in_guide: whether the target is the guide's.
    """

    body: Callable[[Tensor, Tensor], None]
    source: str
    target: str
    in_guide: bool = False
    of_b: Callable[[Tensor, Tensor], Tensor] = lambda a, weight: weight * a

    def model(self) -> None:
        a = pyro.sample("a", dist.Bernoulli(0.4))
        self.body(a, pyro.sample("b", dist.Bernoulli(0.3)))

    def guide(self) -> None:
        p = parameters({"logits": 0.3, "weight": 0.9})
        a = pyro.sample("a", dist.Bernoulli(logits=p["logits"]))
        pyro.sample("b", dist.Bernoulli(logits=self.of_b(a, p["weight"])))


def observed(loc: Tensor) -> None:
    pyro.sample("x", dist.Normal(loc, 0.5), obs=torch.tensor(2.0))


EDGES = {
    "guide to guide": Edge(lambda a, b: observed(2 * b), "a", "b", in_guide=True),
    "guide to its replay in the model": Edge(lambda a, b: observed(2 * b), "a", "a"),
    "draw to cost": Edge(lambda a, b: observed(2 * a), "a", "x"),
    "by a distribution's parameters": Edge(
        lambda a, b: pyro.sample("x", dist.Bernoulli(logits=4 * a - 2), obs=torch.tensor(1.0)), "a", "x"
    ),
    "by indexing": Edge(lambda a, b: observed(torch.tensor([-1.0, 2.0])[a.long()]), "a", "x"),
    "by where": Edge(lambda a, b: observed(torch.where(a > 0.5, 2.0, torch.tensor(-1.0))), "a", "x"),
    "in place": Edge(lambda a, b: observed(2 * b.clone().copy_(a)), "a", "x", of_b=lambda a, weight: weight),
}
LEAVING = Edge(lambda a, b: observed(torch.tensor(2.0 if a.item() else -1.0)), "a", "x", of_b=lambda a, weight: weight)
"""The value leaves torch, so that the order of the program counts; b does not lead from a to x."""


def without(dependence: Dependence, edge: Edge) -> Dependence:
    """The record without the edge."""
    places = {(site.name, i < dependence.guide_sites): i for i, site in enumerate(dependence.sites)}
    source, target = places[edge.source, True], places[edge.target, edge.in_guide]
    values, costs = list(dependence.values), list(dependence.costs)
    assert (values[target] | costs[target]) >> source & 1, "there is such an edge"
    values[target] &= ~(1 << source)
    costs[target] &= ~(1 << source)
    return replace(dependence, values=tuple(values), costs=tuple(costs))


def is_wrong(edge: Edge, exact: dict[str, Tensor], replicates: int) -> bool:
    found = ppgrad.measure(
        ELBO(ScoreFunction()),
        edge.model,
        edge.guide,
        replicates=replicates,
        reference={name: value.float() for name, value in exact.items()},
    )
    return any(float(p_value) < FAILURE_RATE / 2 for p_value in found.p_value.values())


def check(edge: Edge, exact: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, replicates: int) -> None:
    assert not is_wrong(edge, exact, replicates)
    whole = Marking.dependence
    monkeypatch.setattr(Marking, "dependence", lambda *args: without(whole(*args), edge))
    assert is_wrong(edge, exact, replicates)


@pytest.mark.parametrize("kind", EDGES)
def test_an_edge_that_is_dropped_is_found(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = EDGES[kind]
    check(edge, exact_gradient(edge.model, edge.guide), monkeypatch, 20_000)


def test_an_edge_past_torch_that_is_dropped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    same = replace(LEAVING, body=EDGES["by where"].body)  # as torch can follow it
    check(LEAVING, exact_gradient(same.model, same.guide), monkeypatch, 3000)
