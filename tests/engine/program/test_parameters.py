"""Parameters are found and trained wherever they live; what is not trained is left alone."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.nn import PyroModule, PyroParam
from torch import nn

import ppgrad
from ppgrad import (
    ExpectedReturn,
    LeaveOneOut,
    MovingAverage,
    Pathwise,
    ScoreFunction,
)
from tests.objectives.programs import Policy, episode


def registered(policy: nn.Module) -> None:
    pyro.module("policy", policy)
    episode(policy)


class PyroPolicy(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](1, 1)
        self.scale = PyroParam(torch.tensor(0.5), constraint=dist.constraints.positive)

    def forward(self, state: torch.Tensor) -> dist.Normal:
        return dist.Normal(self.linear(state).squeeze(-1), self.scale)


@pytest.mark.parametrize("program", [episode, registered], ids=["argument", "pyro.module"])
@pytest.mark.parametrize("policy", [Policy, PyroPolicy])
@pytest.mark.parametrize(
    "estimator", [Pathwise(), ScoreFunction(LeaveOneOut("n")), ScoreFunction(MovingAverage())], ids=repr
)
def test_svi_trains_parameters_wherever_they_live(program, policy, estimator) -> None:
    actor = policy()
    svi = SVI(program, None, pyro.optim.Adam({"lr": 0.05}), loss=ExpectedReturn(estimator))
    for _ in range(400):
        svi.step(actor)
    assert actor(torch.ones(1, 1)).mean.item() == pytest.approx(3.0, abs=0.5)


def test_a_closed_over_module_and_tensor_are_found() -> None:
    actor, shift = Policy(), torch.tensor(0.1, requires_grad=True)

    def program() -> None:
        action = ppgrad.policy("a", dist.Normal(actor(torch.ones(1)).mean + shift, 1.0))
        ppgrad.cost("f", (action - 3) ** 2)

    found = ppgrad.gradient(ExpectedReturn(), program, seed=0)
    assert set(found) == {"actor.linear.weight", "actor.linear.bias", "shift"}
    assert all(value.abs().sum() > 0 for value in found.values())
    measured = ppgrad.measure(ExpectedReturn(), program, replicates=50)
    assert all(value.abs().sum() > 0 for value in measured.mean.values())


unrelated = nn.Linear(1, 1)


class Agent:
    def __init__(self) -> None:
        self.unrelated = nn.Linear(1, 1)

    def run(self) -> None:
        ppgrad.cost("f", ppgrad.policy("a", dist.Normal(self.unrelated(torch.ones(1)).squeeze(-1), 1.0)) ** 2)


def test_a_method_holds_what_its_owner_does_and_no_global_of_that_name() -> None:
    assert set(ppgrad.gradient(ExpectedReturn(), Agent().run, seed=0)) == {
        "self.unrelated.weight",
        "self.unrelated.bias",
    }


@pytest.mark.parametrize("method", ["gradient", "measure"])
def test_a_batch_norms_statistics_are_left_alone(method: str) -> None:
    actor = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))

    def program(actor: nn.Module) -> None:
        with pyro.plate("n", 4):
            action = ppgrad.policy("a", dist.Normal(actor(torch.ones(4, 1)).squeeze(-1), 1.0))
            ppgrad.cost("f", action**2)

    before = {name: buffer.clone() for name, buffer in actor.named_buffers()}
    options = {"replicates": 5} if method == "measure" else {}
    getattr(ppgrad, method)(ExpectedReturn(), program, args=(actor,), seed=0, **options)
    assert all(torch.equal(buffer, before[name]) for name, buffer in actor.named_buffers())


def test_a_replaced_or_thawed_parameter_is_trained_again() -> None:
    holder = {"policy": Policy()}

    def program() -> None:
        ppgrad.cost("f", (ppgrad.policy("a", holder["policy"](torch.ones(1))) - 3) ** 2)

    svi = SVI(program, None, pyro.optim.Adam({"lr": 0.1}), loss=ExpectedReturn())

    def moves() -> bool:
        before = holder["policy"].linear.bias.clone()
        svi.step()
        return not torch.equal(before, holder["policy"].linear.bias)

    assert moves()
    holder["policy"] = Policy()
    assert moves()
    holder["policy"].linear.bias.requires_grad_(False)
    assert not moves()
    holder["policy"].linear.bias.requires_grad_(True)
    assert moves()


def test_constrained_parameters_have_unconstrained_gradients() -> None:
    def program() -> None:
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        ppgrad.cost("f", ppgrad.policy("x", dist.Normal(0.0, scale)) ** 2)

    result = ppgrad.measure(ExpectedReturn(), program, replicates=2000)
    assert result.reference_kind == "exact"
    assert result.reference["scale"] == pytest.approx(-8.0, rel=1e-3)  # d(−e^{2u})/du at e^u = 2
    assert result.p_value["scale"] > 1e-7
