"""Control variates that are differentiated or learned: what they gain, and how they train."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import (
    ELBO,
    RELAX,
    DoubleControlVariate,
    ExpectedReturn,
    InvalidAssignment,
    LeaveOneOut,
    MuProp,
    Pathwise,
    Rodeo,
    ScoreFunction,
    StickingTheLanding,
    Unsupported,
    measure,
)
from ppgrad.core import Estimator
from ppgrad.testing.problems import parameters


def bernoullis() -> None:
    p = parameters({"logits": [0.3, -0.5, 1.0, 0.0, 0.7]})
    b = ppgrad.policy("b", dist.Bernoulli(logits=p["logits"]).to_event(1))
    ppgrad.cost("f", (b.sum() - 1.5) ** 2 + b @ torch.arange(5.0))


def total(estimator: Estimator, particles: int = 4) -> float:
    result = measure(ExpectedReturn(estimator, num_particles=particles), bernoullis, replicates=4000)
    assert all(bool((p > 1e-7).all()) for p in result.p_value.values())
    return sum(float(variance.sum()) for variance in result.variance.values())


@pytest.mark.parametrize("estimator", [MuProp(), DoubleControlVariate(), Rodeo()], ids=repr)
def test_a_differentiated_control_variate_beats_leave_one_out(estimator: Estimator) -> None:
    assert total(estimator) < total(ScoreFunction(LeaveOneOut()))


def test_linear_costs_leave_no_variance() -> None:
    def program() -> None:
        p = parameters({"logits": [0.3, -0.5, 1.0]})
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["logits"]).to_event(1))
        ppgrad.cost("f", b @ torch.tensor([1.0, -2.0, 0.5]) + 3.0)

    exact = ppgrad.exact_gradient(ExpectedReturn(), program)["logits"]
    for estimator in (MuProp(), DoubleControlVariate()):
        result = measure(ExpectedReturn(estimator, num_particles=2), program, replicates=50)
        torch.testing.assert_close(result.draws["logits"], exact.expand(50, 3))


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (lambda p: dist.Bernoulli(logits=p["theta"]).to_event(1), [0.5, -0.3]),
        (lambda p: dist.Categorical(logits=p["theta"]), [0.5, -0.3, 0.1]),
        (lambda p: dist.Normal(p["theta"], 0.7).to_event(1), [0.5, -0.3]),
    ],
    ids=["Bernoulli", "Categorical", "Normal"],
)
def test_relax_trains_its_network_to_lower_the_variance(kind, start) -> None:
    torch.manual_seed(0)
    width = {"2": 4, "3": 3}[str(len(start))]

    def program(theta: Tensor) -> None:
        x = ppgrad.policy("x", kind({"theta": theta}))
        ppgrad.cost("f", (x.to(theta.dtype) ** 2).sum() * 2 + x.to(theta.dtype).sum())

    if kind({"theta": torch.tensor(start)}).event_shape and "Normal" in str(
        kind({"theta": torch.tensor(start)}).base_dist
    ):
        width = 2
    module = torch.nn.Sequential(torch.nn.Linear(width, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    theta = torch.tensor(start, requires_grad=True)
    objective = ExpectedReturn(RELAX(module), num_particles=16)

    def variance() -> float:
        result = measure(ExpectedReturn(RELAX(module)), program, args=(theta,), replicates=4000)
        assert bool((result.p_value["theta"] > 1e-7).all())
        return float(result.variance["theta"].sum())

    before = variance()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        objective.differentiable_loss(program, None, theta).backward()
        optimizer.step()
    assert variance() < 0.5 * before


def test_the_surrogate_passes_no_gradient_to_the_network() -> None:
    module = torch.nn.Linear(10, 1)
    objective = ExpectedReturn(RELAX(module))
    surrogate = objective.estimate(objective.prepare(bernoullis).executor).surrogate
    assert torch.autograd.grad(surrogate, list(module.parameters()), allow_unused=True) == (None, None)


def test_relax_refuses_what_is_no_module() -> None:
    with pytest.raises(InvalidAssignment, match=r"torch\.nn\.Module"):
        RELAX(lambda z: z.sum(-1))


def test_a_context_that_is_not_there_is_named() -> None:
    with pytest.raises(Unsupported, match="context=state"):
        ppgrad.gradient(ExpectedReturn(RELAX(torch.nn.Linear(10, 1), reads_context=True)), bernoullis, seed=0)


def test_comparing_particles_needs_two() -> None:
    for estimator in (DoubleControlVariate(), Rodeo()):
        with pytest.raises(Unsupported, match="num_particles=2"):
            ppgrad.gradient(ExpectedReturn(estimator), bernoullis, seed=0)


def conjugate(scale: float) -> tuple:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    def guide() -> None:
        p = parameters({"mu": 0.5, "sigma": scale})
        pyro.sample("z", dist.Normal(p["mu"], p["sigma"]))

    return model, guide


def test_sticking_the_landing_has_no_variance_at_the_posterior() -> None:
    model, guide = conjugate(0.5**0.5)
    landed = measure(ELBO(StickingTheLanding()), model, guide, replicates=1000)
    assert all(float(variance) < 1e-10 for variance in landed.variance.values())
    total_derivative = measure(ELBO(Pathwise()), model, guide, replicates=100_000)
    for name, variance in {"mu": 2.0, "sigma": 4.0}.items():
        error = 5 * float(total_derivative.variance_mcse[name])
        assert float(total_derivative.variance[name]) == pytest.approx(variance, abs=error)
