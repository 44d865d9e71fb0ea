"""What was computed from what: every kind of way for a value to get from a draw to a cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import ELBO, ExpectedReturn, ScoreFunction
from ppgrad.testing.problems import parameters

NET = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)).requires_grad_(False)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


def buffered(x: Tensor) -> Tensor:
    buffer = torch.zeros(2)
    buffer[1] = x
    return buffer.sum()


def written_out(x: Tensor) -> Tensor:
    out = torch.zeros(())
    torch.add(x, 1.0, out=out)
    return out


WAYS: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda x: 3 * x + 1,
    "a module": lambda x: NET(x.reshape(1, 1)).sum(),
    "a buffer": buffered,
    "out=": written_out,
    "an index": lambda x: torch.tensor([2.0, 5.0])[x.long()],
    "where": lambda x: torch.where(x > 0.5, 4.0, -1.0),
    "cat": lambda x: torch.cat([x.reshape(1), torch.ones(2)]).sum(),
    "a list": lambda x: torch.tensor([x, 1.0]).sum(),
    "an autograd function": Double.apply,
    "detach": lambda x: x.detach() ** 2,
    "data": lambda x: x.data + 1,
    "no_grad": torch.no_grad()(lambda x: x * 3),
    "vmap": lambda x: torch.vmap(lambda y: y * 2)(x.reshape(1)).sum(),
    "grad": lambda x: torch.func.grad(lambda y: y**3)(x),
    "a comparison": lambda x: (x > 0.5).float(),
    "arange": lambda x: torch.arange(2, dtype=torch.float32)[x.long()],
    "item": lambda x: 3.0 * x.item(),
    "numpy": lambda x: np.asarray(x) * 2.0,
    "tolist": lambda x: torch.tensor(x.tolist()) + 1,
    "float": lambda x: float(x) + 1,
    "a branch": lambda x: torch.tensor(2.0) if x > 0.5 else torch.tensor(-1.0),
    "a list's index": lambda x: torch.tensor([1.0, 7.0].__getitem__(int(x))),
    "a format": lambda x: float(f"{x:.1f}"),
    "nonzero": lambda x: torch.tensor(float(len(x.reshape(1).nonzero()))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_cost_is_charged_however_its_value_gets_there(way: str) -> None:
    def model() -> None:
        logits = parameters({"logit": 0.3})["logit"]
        x = ppgrad.policy("x", dist.Bernoulli(logits=logits))
        ppgrad.reward("r", WAYS[way](x))

    assert ppgrad.dependence(model).table.loc[("program", "x"), "charged_with"] == "r"
    objective = ExpectedReturn(ScoreFunction())
    values = [float(torch.as_tensor(WAYS[way](torch.tensor(x))).detach()) for x in (0.0, 1.0)]
    p = torch.sigmoid(torch.tensor(0.3))
    exact = p * (1 - p) * (values[1] - values[0])
    found = ppgrad.measure(objective, model, replicates=1000, reference={"logit": exact})
    assert float(found.p_value["logit"]) > 1e-7


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("no_grad",)])
def test_what_was_not_computed_from_a_draw_is_not_charged_to_it(way: str) -> None:
    def model() -> None:
        logits = parameters({"logit": 0.3})["logit"]
        x = ppgrad.policy("x", dist.Bernoulli(logits=logits))
        ppgrad.reward("before", torch.ones(()))
        ppgrad.reward("r", WAYS[way](x))
        y = ppgrad.policy("y", dist.Bernoulli(logits=logits))
        ppgrad.reward("of_y", y + 1)

    table = ppgrad.dependence(model).table
    report = ppgrad.dependence(model)
    charged = table.loc[("program", "x"), "charged_with"].split(", ")
    assert "before" not in charged
    assert ("of_y" in charged) is bool(report.notes), "after a value has left torch the order counts"


def test_a_note_says_where_a_value_left_torch() -> None:
    def model() -> None:
        x = ppgrad.policy("x", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        weight = x.item()
        ppgrad.reward("r", torch.tensor(weight))

    (note,) = ppgrad.dependence(model).notes
    assert "test_program_dependence.py" in note
    assert "x.item()" in note


def test_the_guide_in_another_order_than_the_model() -> None:
    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(0.4))
        b = pyro.sample("b", dist.Bernoulli(0.3 + 0.4 * a))
        pyro.sample("x", dist.Normal(b, 1.0), obs=torch.tensor(0.5))

    def guide() -> None:
        p = parameters({"logit_a": 0.1, "logit_b": -0.2})
        pyro.sample("b", dist.Bernoulli(logits=p["logit_b"]))
        pyro.sample("a", dist.Bernoulli(logits=p["logit_a"]))

    table = ppgrad.dependence(model, guide).table
    assert table.loc[("guide", "a"), "charged_with"] == "a, b"
    assert table.loc[("guide", "b"), "charged_with"] == "b, x"
    exact = ppgrad.exact_gradient(ELBO(), model, guide)
    found = ppgrad.measure(ELBO(ScoreFunction()), model, guide, replicates=4000, reference=exact)
    assert min(float(p.min()) for p in found.p_value.values()) > 1e-7


def test_the_picture_and_the_text(tmp_path: Any) -> None:
    def model() -> None:
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
            ppgrad.reward("r", x)

    found = ppgrad.dependence(model)
    found.plot().savefig(tmp_path / "dependence.png")
    assert (tmp_path / "dependence.png").stat().st_size > 5000
    assert "ScoreFunction()" in str(found)
