"""Parameters are found and trained wherever they live; what is not trained is left alone."""

from __future__ import annotations

import functools
from collections.abc import Callable

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

    def program(policy: Policy) -> None:
        ppgrad.cost("f", (ppgrad.policy("a", policy(torch.ones(1))) - 3) ** 2)

    svi = SVI(program, None, pyro.optim.Adam({"lr": 0.1}), loss=ExpectedReturn())

    def moves() -> bool:
        before = holder["policy"].linear.bias.clone()
        svi.step(holder["policy"])
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


class Frozen:
    """Ways for a program to read a network that nobody handed over."""

    @staticmethod
    def by_closure(net: nn.Module) -> Callable[[], None]:
        def program() -> None:
            loc = pyro.param("loc", torch.zeros(1))
            ppgrad.cost("f", net(ppgrad.policy("x", dist.Normal(loc, 1.0).to_event(1))).sum() ** 2)

        return program

    @staticmethod
    def by_owner(net: nn.Module) -> Callable[[], None]:
        class Simulator:
            def __init__(self) -> None:
                self.net = net

            def program(self) -> None:
                loc = pyro.param("loc", torch.zeros(1))
                ppgrad.cost("f", self.net(ppgrad.policy("x", dist.Normal(loc, 1.0).to_event(1))).sum() ** 2)

        return Simulator().program

    @staticmethod
    def by_list(net: nn.Module) -> Callable[[], None]:
        tensors = [net.weight, net.bias]

        def program() -> None:
            loc = pyro.param("loc", torch.zeros(1))
            x = ppgrad.policy("x", dist.Normal(loc, 1.0).to_event(1))
            ppgrad.cost("f", (x * tensors[0] + tensors[1]).sum() ** 2)

        return program


@pytest.mark.parametrize("way", ["by_closure", "by_owner", "by_list"])
@pytest.mark.parametrize("compile", [False, "eager"])
def test_a_network_that_is_merely_read_is_not_trained(way: str, compile: bool | str) -> None:
    net = nn.Linear(1, 1)
    before = {name: leaf.detach().clone() for name, leaf in net.named_parameters()}
    program = getattr(Frozen, way)(net)
    objective = ExpectedReturn(compile=compile)
    svi = SVI(program, None, pyro.optim.Adam({"lr": 0.1}), loss=objective)
    for _ in range(2):
        svi.step()
    ppgrad.fit(objective, program, steps=2, learning_rate=0.1, progress=False)
    assert {name: leaf.detach() for name, leaf in net.named_parameters()} == before
    assert set(pyro.get_param_store().keys()) == {"loc"}
    assert pyro.param("loc").item() != 0
    assert len(ppgrad.gradient(objective, program, seed=0)) == 3  # a gradient is of all that the cost depends on


def by_argument(net: nn.Module) -> Callable[..., None]:
    def program(net: nn.Module) -> None:
        ppgrad.cost("f", (ppgrad.policy("x", dist.Normal(net(torch.ones(1)), 1.0).to_event(1)) ** 2).sum())

    return functools.partial(program, net)


def by_rollout(net: nn.Module) -> Callable[..., object]:
    class Line(ppgrad.envs.Environment):
        action_space = ppgrad.envs.Box((1,))

        def initial(self, episodes: int) -> torch.Tensor:
            return torch.ones(episodes, 1)

        def transition(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            return state + action

        def reward(self, state: torch.Tensor, action: torch.Tensor, next_state: torch.Tensor) -> torch.Tensor:
            return -next_state.square().sum(-1)

    return ppgrad.rollout(Line(), lambda state: dist.Normal(net(state), 1.0).to_event(1), horizon=1)


def by_module(net: nn.Module) -> Callable[..., None]:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self) -> None:
            ppgrad.cost("f", (ppgrad.policy("x", dist.Normal(self.net(torch.ones(1)), 1.0).to_event(1)) ** 2).sum())

    return Whole()


@pytest.mark.parametrize("way", [by_argument, by_rollout, by_module])
def test_a_network_that_is_handed_over_is_trained(way: Callable[[nn.Module], Callable[..., object]]) -> None:
    net = nn.Linear(1, 1)
    before = net.bias.detach().clone()
    program = way(net)
    SVI(program, None, pyro.optim.Adam({"lr": 0.1}), loss=ExpectedReturn()).step()
    after_a_step = net.bias.detach().clone()
    ppgrad.fit(ExpectedReturn(), program, steps=1, learning_rate=0.1, progress=False)
    assert before != after_a_step != net.bias


def test_nothing_to_train_names_what_is_read() -> None:
    net = nn.Linear(1, 1)

    def program() -> None:
        ppgrad.cost("f", (ppgrad.policy("x", dist.Normal(net(torch.ones(1)), 1.0).to_event(1)) ** 2).sum())

    with pytest.raises(ppgrad.InvalidProgram, match=r"It reads net\.bias, net\.weight"):
        ppgrad.fit(ExpectedReturn(), program, steps=1, progress=False)
