"""Divergences between guide and posterior, against sums and integrals over all draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import (
    ELBO,
    IWELBO,
    VIMCO,
    DisARM,
    Divergence,
    Enumerate,
    InvalidInput,
    LeaveOneOut,
    LocalExpectation,
    Pathwise,
    ScoreFunction,
    Unsupported,
)
from ppgrad.testing.problems import parameters

FAILURE_RATE = 1e-8
INITIAL = {"l": [0.4, -0.3], "w": 0.8}
NORMAL = {"m": 0.3, "s": 0.7}


def model() -> None:
    w = parameters(INITIAL)["w"]
    y = pyro.sample("y", dist.Bernoulli(torch.tensor(0.4)))
    z = pyro.sample("z", dist.Bernoulli(0.2 + 0.5 * y))
    pyro.sample("x", dist.Normal(w * (y + z), 1.0), obs=torch.tensor(1.2))


def guide() -> None:
    logits = parameters(INITIAL)["l"]
    y = pyro.sample("y", dist.Bernoulli(logits=logits[0]))
    pyro.sample("z", dist.Bernoulli(logits=logits[1] * (1 + y)))


def normal_model() -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.2))


def normal_guide() -> None:
    p = parameters(NORMAL)
    pyro.sample("z", dist.Normal(p["m"], p["s"]))


FUNCTIONS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "forward_kl": ({"f": "forward_kl"}, lambda r: r * r.log()),
    "reverse_kl": ({"f": "reverse_kl"}, lambda r: -r.log()),
    "chi_square": ({"f": "chi_square"}, lambda r: (r - 1) ** 2),
    "hellinger": ({"f": "hellinger"}, lambda r: (r.sqrt() - 1) ** 2),
    "jensen_shannon": (
        {"f": "jensen_shannon"},
        lambda r: 0.5 * (r * r.log() - (r + 1) * ((r + 1) / 2).log()),
    ),
    "own": ({"f": lambda r: (r - 1).abs() / 2}, lambda r: (r - 1).abs() / 2),
}


def mean_of(name: str, ratios: Tensor) -> Tensor:
    """The divergence's estimate of the ratios of K runs along the last dimension."""
    if name == "renyi":
        return ((ratios**2.5).mean(-1)).log() / 1.5
    return FUNCTIONS[name][1](ratios).mean(-1)


def options(name: str) -> dict[str, Any]:
    return {"f": "renyi", "alpha": 2.5} if name == "renyi" else FUNCTIONS[name][0]


NAMES = [*FUNCTIONS, "renyi"]


def exact(name: str, runs: int) -> dict[str, Tensor]:
    """Minus the gradient of the expected estimate, over all draws of all runs."""
    p = {key: torch.tensor(start, dtype=torch.float64, requires_grad=True) for key, start in INITIAL.items()}
    log_q, log_p = [], []
    for y, z in itertools.product((0.0, 1.0), repeat=2):
        sign_y, sign_z, prior = 2 * y - 1, 2 * z - 1, 0.2 + 0.5 * y
        scores = torch.nn.functional.logsigmoid(torch.stack([p["l"][0] * sign_y, p["l"][1] * (1 + y) * sign_z]))
        log_q.append(scores.sum())
        log_prior = math.log(0.4 if y else 0.6) + math.log(prior if z else 1 - prior)
        log_p.append(log_prior - 0.5 * (1.2 - p["w"] * (y + z)) ** 2)
    q, log_w = torch.stack(log_q), torch.stack(log_p) - torch.stack(log_q)
    draws = torch.tensor(list(itertools.product(range(4), repeat=runs)))
    weights = log_w[draws].exp()
    estimates = mean_of(name, weights / weights.mean(-1, keepdim=True))
    return dict(zip(p, torch.autograd.grad(-(q[draws].sum(-1).exp() * estimates).sum(), list(p.values())), strict=True))


def exact_normal(name: str) -> dict[str, Tensor]:
    """The same for two draws of a Gaussian guide, by quadrature."""
    p = {key: torch.tensor(start, dtype=torch.float64, requires_grad=True) for key, start in NORMAL.items()}
    nodes = torch.linspace(-7, 7, 701, dtype=torch.float64)
    chances = torch.exp(-0.5 * nodes**2)
    chances = chances / chances.sum()
    z = p["m"] + p["s"] * nodes
    weights = (-0.5 * z**2 - 0.5 * (1.2 - z) ** 2 + 0.5 * nodes**2 + p["s"].log()).exp()
    pairs = torch.stack(torch.broadcast_tensors(weights, weights.unsqueeze(-1)), -1)
    estimates = mean_of(name, pairs / pairs.mean(-1, keepdim=True))
    total = -(chances * chances.unsqueeze(-1) * estimates).sum()
    return dict(zip(p, torch.autograd.grad(total, list(p.values())), strict=True))


@pytest.mark.parametrize(
    "estimator",
    [ScoreFunction(), ScoreFunction(VIMCO()), ScoreFunction(LeaveOneOut()), LocalExpectation(), DisARM()],
    ids=repr,
)
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_discrete_guides(name: str, estimator: ppgrad.Estimator) -> None:
    objective = Divergence(estimator, **options(name), num_importance=3, num_particles=2)
    found = ppgrad.measure(objective, model, guide, replicates=4000, reference=exact(name, 3))
    assert all(bool((p > FAILURE_RATE).all()) for p in found.p_value.values())


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction(VIMCO())], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_continuous_guides(name: str, estimator: ppgrad.Estimator) -> None:
    objective = Divergence(estimator, **options(name), num_importance=2, num_particles=4)
    found = ppgrad.measure(objective, normal_model, normal_guide, replicates=4000, reference=exact_normal(name))
    assert all(bool((p > FAILURE_RATE).all()) for p in found.p_value.values())


def test_the_reverse_divergence_is_a_difference_of_bounds() -> None:
    for seed in range(3):
        found = ppgrad.gradient(Divergence(f="reverse_kl", num_importance=4), normal_model, normal_guide, seed=seed)
        elbo = ppgrad.gradient(ELBO(num_particles=4), normal_model, normal_guide, seed=seed)
        bound = ppgrad.gradient(IWELBO(num_importance=4), normal_model, normal_guide, seed=seed)
        for key, gradient in found.items():
            torch.testing.assert_close(gradient, elbo[key] - bound[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_it_converges_to_the_divergence(name: str) -> None:
    """Of two Gaussians: the posterior N(0.6, ½) and the guide, by quadrature."""
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    q = dist.Normal(0.3, 0.7).log_prob(z)
    ratios = (dist.Normal(0.6, 0.5**0.5).log_prob(z) - q).exp()
    chances = q.exp() / q.exp().sum()
    if name == "renyi":
        expected = float((chances * ratios**2.5).sum().log() / 1.5)
    else:
        expected = float((chances * FUNCTIONS[name][1](ratios)).sum())
    objective = Divergence(**options(name), num_importance=5000, num_particles=4)
    assert objective.loss(normal_model, normal_guide) == pytest.approx(expected, rel=0.25, abs=0.01)


def test_a_sample_that_cannot_be() -> None:
    costs = torch.tensor([[0.3, math.inf, 1.2]], requires_grad=True)
    for name in ("forward_kl", "chi_square", "hellinger", "jensen_shannon"):
        value = Divergence(f=name).value(costs)  # type: ignore[arg-type]
        assert bool(value.isfinite().all()), name


def test_bad_input() -> None:
    with pytest.raises(InvalidInput, match="write 'forward_kl', 'reverse_kl'"):
        Divergence(f="kl")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"f\(1\) is 1"):
        Divergence(f=lambda r: r)
    with pytest.raises(InvalidInput, match="not convex"):
        Divergence(f=lambda r: r.log())
    with pytest.raises(InvalidInput, match="one of the same shape"):
        Divergence(f=lambda r: (r - 1).sum())
    with pytest.raises(InvalidInput, match="alpha is the order"):
        Divergence(f="renyi")
    with pytest.raises(InvalidInput, match="alpha is the order"):
        Divergence(alpha=2.0)
    for alpha in (0.0, 1.0, -2.0):
        with pytest.raises(InvalidInput, match="alpha is above 0 and not 1"):
            Divergence(f="renyi", alpha=alpha)
    with pytest.raises(InvalidInput, match="another to compare with"):
        Divergence(num_importance=1)
    with pytest.raises(Unsupported, match="Enumerate cannot serve site"):
        ppgrad.gradient(Divergence(Enumerate()), model, guide)
