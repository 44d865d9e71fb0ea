"""Programs whose sites, distributions, parameters and costs depend on what they draw: each run has its own."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import DisARM, Enumerate, ExpectedReturn, LeaveOneOut, LocalExpectation, ScoreFunction, Unsupported
from ppgrad.testing.problems import parameters

T, W = 0.3, -0.2


def fixed_or_learned() -> None:
    z = pyro.sample("z", dist.Bernoulli(0.5))
    t = parameters({"t": T})["t"]
    x = ppgrad.policy("x", dist.Bernoulli(logits=t) if z.item() else dist.Bernoulli(0.5))
    ppgrad.reward("r", 4 * x)


def discrete_or_continuous() -> None:
    t = parameters({"t": T})["t"]
    z = ppgrad.policy("z", dist.Bernoulli(logits=t))
    x = ppgrad.policy("x", dist.Normal(t, 1.0) if z > 0 else dist.Bernoulli(logits=t))
    ppgrad.reward("r", 2 * x + z)


def of_two_sizes() -> None:
    t = parameters({"t": T})["t"]
    z = ppgrad.policy("z", dist.Bernoulli(logits=t))
    x = ppgrad.policy("x", dist.Bernoulli(logits=t.expand(2 + int(z))).to_event(1))
    ppgrad.reward("r", x.sum())


def a_parameter_of_one_branch() -> None:
    z = ppgrad.policy("z", dist.Bernoulli(logits=parameters({"t": T})["t"]))
    if z.item() == 1:
        w = pyro.param("w", torch.tensor(W))
        ppgrad.reward("r", 3 * ppgrad.policy("x", dist.Bernoulli(logits=w)))
    else:
        ppgrad.reward("r", torch.tensor(1.0))


def a_cost_of_one_branch() -> None:
    p = parameters({"t": T, "w": W})
    z = ppgrad.policy("z", dist.Bernoulli(logits=p["t"]))
    x = ppgrad.policy("x", dist.Bernoulli(logits=p["w"]))
    ppgrad.reward("always", x)
    if bool(z):
        ppgrad.reward("sometimes", 2 * x + 1)


def a_site_of_one_branch() -> None:
    p = parameters({"t": T, "w": W})
    z = ppgrad.policy("z", dist.Bernoulli(logits=p["t"]))
    total = z
    if z > 0:
        total = total + ppgrad.policy("y", dist.Categorical(logits=torch.stack([p["w"], -p["w"], torch.zeros(())])))
    ppgrad.reward("r", total * 1.0)


def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


PROGRAMS: dict[str, tuple[Callable[[], None], Callable[[Tensor, Tensor], Tensor]]] = {
    "fixed or learned": (fixed_or_learned, lambda t, w: 0.5 * 4 * sigmoid(t) + 0 * w),
    "discrete or continuous": (
        discrete_or_continuous,
        lambda t, w: sigmoid(t) * (2 * t + 1) + (1 - sigmoid(t)) * 2 * sigmoid(t) + 0 * w,
    ),
    "of two sizes": (of_two_sizes, lambda t, w: sigmoid(t) * (2 + sigmoid(t)) + 0 * w),
    "a parameter of one branch": (
        a_parameter_of_one_branch,
        lambda t, w: sigmoid(t) * 3 * sigmoid(w) + (1 - sigmoid(t)),
    ),
    "a cost of one branch": (a_cost_of_one_branch, lambda t, w: sigmoid(w) + sigmoid(t) * (2 * sigmoid(w) + 1)),
    "a site of one branch": (
        a_site_of_one_branch,
        lambda t, w: sigmoid(t) * (1 + (torch.arange(3) * torch.stack([w, -w, torch.zeros(())]).softmax(0)).sum()),
    ),
}


def exact(name: str) -> dict[str, Tensor]:
    t, w = torch.tensor(T, requires_grad=True), torch.tensor(W, requires_grad=True)
    found = torch.autograd.grad(PROGRAMS[name][1](t, w), [t, w], allow_unused=True)
    return {key: value for key, value in zip(("t", "w"), found, strict=True) if value is not None}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    ("estimator", "particles"),
    [(None, 1), (ScoreFunction(), 1), (ScoreFunction(LeaveOneOut()), 3)],
    ids=["default", "score", "leave one out"],
)
def test_the_gradient_is_right(name: str, estimator: ppgrad.Estimator | None, particles: int) -> None:
    objective = ExpectedReturn(estimator, num_particles=particles)
    truth = exact(name)
    found = ppgrad.measure(
        objective,
        PROGRAMS[name][0],
        replicates=600,
        reference={"t": truth["t"], **{"w": truth["w"]}} if "w" in read(name) else {"t": truth["t"]},
    )
    assert min(float(p.min()) for p in found.p_value.values()) > 1e-7


def read(name: str) -> set[str]:
    """The parameters that a program has."""
    return {"t"} if name in ("fixed or learned", "discrete or continuous", "of two sizes") else {"t", "w"}


@pytest.mark.parametrize(
    ("name", "estimator"),
    [
        (name, estimator)
        for name in PROGRAMS
        for estimator in (Enumerate(), LocalExpectation(), DisARM())
        if name != "discrete or continuous" and (name != "of two sizes" or not isinstance(estimator, Enumerate))
    ],
    ids=str,
)
def test_branches_have_their_own_structure(name: str, estimator: ppgrad.Estimator) -> None:
    truth = {key: value for key, value in exact(name).items() if key in read(name)}
    objective = ExpectedReturn(estimator)
    found = ppgrad.measure(objective, PROGRAMS[name][0], replicates=400, reference=truth)
    assert min(float(p.min()) for p in found.p_value.values()) > 1e-7


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in ("of two sizes", "discrete or continuous")])
def test_the_exact_gradient_is_exact(name: str) -> None:
    found = ppgrad.exact_gradient(ExpectedReturn(), PROGRAMS[name][0])
    for key, value in exact(name).items():
        if key in read(name):
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def test_a_choice_changes_when_the_distribution_does() -> None:
    def warming_up(step: Tensor) -> None:
        m = parameters({"m": 0.5})["m"]
        ppgrad.reward("r", 3 * ppgrad.policy("x", dist.Bernoulli(logits=m) if step >= 5 else dist.Bernoulli(0.5)))

    objective = ExpectedReturn(ScoreFunction(), num_particles=16)
    svi = pyro.infer.SVI(warming_up, None, pyro.optim.Adam({"lr": 0.05}), loss=objective)
    for step in range(60):
        svi.step(torch.tensor(step))
    assert pyro.param("m").item() > 1.0


@pytest.mark.parametrize("name", ["of two sizes", "discrete or continuous"])
def test_a_sum_over_other_values_in_every_run_is_refused(name: str) -> None:
    with pytest.raises(Unsupported, match=r"'x'.* values in one run, "):
        ppgrad.exact_gradient(ExpectedReturn(), PROGRAMS[name][0])
