"""Numbers that change from step to step do not make another program; what they do to its structure is seen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import nn

import ppgrad
from ppgrad import ELBO, ExpectedReturn, Pathwise, ScoreFunction


def model(weight: float, *, shift: float = 0.0) -> None:
    with poutine.scale(scale=weight):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0 + shift))


def guide(weight: float, *, shift: float = 0.0) -> None:
    with poutine.scale(scale=weight):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1e-4))


def as_argument(weight: float) -> tuple[Any, Any, tuple[float, ...], dict[str, float]]:
    return model, guide, (weight,), {}


def as_keyword(weight: float) -> tuple[Any, Any, tuple[float, ...], dict[str, float]]:
    return model, guide, (1.0,), {"shift": weight}


def as_partial(weight: float) -> tuple[Any, Any, tuple[float, ...], dict[str, float]]:
    return functools.partial(model, weight), functools.partial(guide, weight), (), {}


def as_partial_of_a_partial(weight: float) -> tuple[Any, Any, tuple[float, ...], dict[str, float]]:
    return functools.partial(functools.partial(model), weight, shift=weight), functools.partial(guide, weight), (), {}


WAYS = [as_argument, as_keyword, as_partial, as_partial_of_a_partial]


@pytest.mark.parametrize("way", WAYS)
def test_a_program_is_prepared_once_while_a_number_is_annealed(way: Callable[[float], Any]) -> None:
    annealed = ELBO(Pathwise(), num_particles=2)
    for step in range(1, 5):
        model_, guide_, args, kwargs = way(step / 4)
        found = ppgrad.gradient(annealed, model_, guide_, args, kwargs, seed=0)
        anew = ppgrad.gradient(ELBO(Pathwise(), num_particles=2), model_, guide_, args, kwargs, seed=0)
        torch.testing.assert_close(found, anew)
    assert len(annealed._prepared) == 1


def test_a_number_may_choose_who_serves_a_site() -> None:
    """E[3x] with p = σ(m) has the gradient 3 p (1 − p) where the distribution is learned, and none where it is not."""

    def program(progress: float) -> None:
        m = pyro.param("m", torch.tensor(0.0))
        fn = dist.Bernoulli(logits=m) if progress > 0.5 else dist.Bernoulli(0.5)
        ppgrad.reward("r", 3 * ppgrad.policy("x", fn))

    objective = ExpectedReturn(ScoreFunction(ppgrad.LeaveOneOut()), num_particles=2000)
    found = [float(ppgrad.gradient(objective, program, args=(share,), seed=1)["m"]) for share in (0.0, 1.0, 0.25, 0.75)]
    assert found[0] == found[2] == 0
    assert all(abs(gradient - 0.75) < 0.2 for gradient in found[1::2])  # a standard error is 0.75 / √2000


def test_a_number_may_choose_sites_and_shapes() -> None:
    def program(share: float) -> None:
        m = pyro.param("m", torch.tensor(0.5))
        with pyro.plate("n", 2 if share < 0.5 else 3):
            x = ppgrad.policy("x", dist.Normal(m, 1e-4))
            ppgrad.reward("r", x)
        if share > 0.75:
            ppgrad.reward("more", ppgrad.policy("y", dist.Normal(2 * m, 1e-4)))

    objective = ExpectedReturn(Pathwise())
    found = [float(ppgrad.gradient(objective, program, args=(s,), seed=0)["m"]) for s in (0.0, 0.6, 1.0, 0.0)]
    assert found == pytest.approx([2, 3, 5, 2])


def test_a_partial_object_with_another_module_is_another_program() -> None:
    def program(net: nn.Module) -> None:
        ppgrad.reward("r", ppgrad.policy("x", dist.Normal(net(torch.ones(1)), 1.0).to_event(1)).sum())

    objective = ExpectedReturn(Pathwise())
    for net in (nn.Linear(1, 1), nn.Linear(1, 1)):
        objective.loss_and_grads(functools.partial(program, net), None)
        assert net.bias.grad is not None
