"""Plates whose slices are computed from each other: named, and the gradient is right all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import CoupledSlices, ExpectedReturn, LeaveOneOut, LocalExpectation, ScoreFunction, Unsupported
from ppgrad.testing.problems import parameters

SIZE = 3


def program(reward: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    def model() -> None:
        logits = parameters({"logits": [0.3, -0.4, 0.8]})["logits"]
        with pyro.plate("slices", SIZE):
            x = ppgrad.policy("x", dist.Bernoulli(logits=logits))
            ppgrad.reward("r", reward(x))

    return model


def by_enumeration(reward: Callable[[Tensor], Tensor]) -> Tensor:
    logits = torch.tensor([0.3, -0.4, 0.8], requires_grad=True)
    values = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * SIZE)
    densities = dist.Bernoulli(logits=logits).log_prob(values).sum(1).exp()
    total = torch.stack([reward(value).sum() for value in values])
    (gradient,) = torch.autograd.grad((densities * total).sum(), [logits])
    return gradient


COUPLED: dict[str, Any] = {
    "the batch's mean": lambda x: x * torch.tensor([1.0, 2.0, 4.0]) - x.mean() * x,
    "the batch's maximum": lambda x: (x - x.max()) ** 2 + x,
    "its neighbour": lambda x: x * x.roll(1) * 3,
    "a matrix product": lambda x: torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 1.0]]) @ x * x,
    "an index": lambda x: torch.stack([x[2 - i] * x[i] for i in range(SIZE)]),
}


@pytest.mark.parametrize("kind", COUPLED)
@pytest.mark.parametrize(
    "estimator", [ScoreFunction(), ScoreFunction(LeaveOneOut("slices")), LocalExpectation()], ids=repr
)
def test_the_gradient_is_right_and_the_plate_is_named(kind: str, estimator: ppgrad.Estimator) -> None:
    model = program(COUPLED[kind])
    with pytest.warns(CoupledSlices, match=r"Plate 'slices': site 'r' .* 'x' in other slices"):
        measured = ppgrad.measure(
            ExpectedReturn(estimator), model, replicates=4000, reference={"logits": by_enumeration(COUPLED[kind])}
        )
    assert float(measured.p_value["logits"].min()) > 1e-6
    torch.testing.assert_close(
        ppgrad.exact_gradient(ExpectedReturn(), model)["logits"], by_enumeration(COUPLED[kind]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", COUPLED)
def test_strict_refuses(kind: str) -> None:
    with pytest.raises(Unsupported, match=r"Plate 'slices'.*LeaveOneOut\(over='slices'\)"):
        ppgrad.gradient(ExpectedReturn(ScoreFunction(), strict=True), program(COUPLED[kind]), seed=0)


def test_slices_that_are_apart_are_not_named() -> None:
    model = program(lambda x: x**2 - 3 * x)
    (signal,) = [
        signal
        for _, signal, _ in ExpectedReturn(ScoreFunction())
        .estimate(ExpectedReturn(ScoreFunction()).prepare(model).executor)
        .served
    ]
    assert signal.within("slices").shape[-1] == SIZE


def test_a_nested_plate_is_coupled_in_itself_alone() -> None:
    def model() -> None:
        p = parameters({"p": 0.2})["p"]
        with pyro.plate("outer", 2, dim=-2), pyro.plate("inner", 3, dim=-1):
            x = ppgrad.policy("x", dist.Bernoulli(logits=p))
            ppgrad.reward("r", x - x.mean(-1, keepdim=True) * x)

    objective = ExpectedReturn(ScoreFunction())
    with pytest.warns(CoupledSlices, match="Plate 'inner'"):
        executor = objective.prepare(model).executor
    (dependence,) = executor.known.dependences.values()
    assert [plate.name for plate in dependence.coupled(0)] == ["inner"]
    ((_, signal, _),) = objective.estimate(executor).served
    assert signal.value.shape[2:] == (2, 1), "a row is charged with all of itself, and with nothing of the other"


def test_a_program_that_runs_in_a_loop_is_asked_too() -> None:
    model = program(lambda x: torch.as_tensor((x.numpy() - x.numpy().mean()) * (1 + x.numpy())))
    with pytest.warns(CoupledSlices, match="Plate 'slices'"):
        ExpectedReturn(ScoreFunction()).prepare(model)
