"""Expected returns of continuous sites."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad
from ppgrad.core import Problem
from ppgrad.objectives import ExpectedReturn
from ppgrad.testing.problems.common import Parameters, closed_form, parameters


def normal_plate() -> Problem:
    """x_n ~ N(μ, σ); f = Σ (x_n − k_n)²."""
    initial = {"mu": 0.7, "sigma": 0.8}

    def model() -> None:
        p, k = parameters(initial), torch.tensor([0.0, 0.5, 1.0])
        with pyro.plate("n", 3):
            x = ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"]), context=k.unsqueeze(-1))
            ppgrad.cost("f", (x - k) ** 2)

    def value(p: Parameters) -> Tensor:
        k = torch.tensor([0.0, 0.5, 1.0])
        return -((p["mu"] - k) ** 2 + p["sigma"] ** 2).sum()

    return Problem(model, ExpectedReturn, "Normal sites in a plate", exact=closed_form(initial, value))


def gamma() -> Problem:
    """x ~ Gamma(a, b); r = x, J = a / b."""
    initial = {"a": 2.0, "b": 1.5}

    def model() -> None:
        p = parameters(initial)
        ppgrad.reward("r", ppgrad.policy("x", dist.Gamma(p["a"], p["b"])))

    return Problem(model, ExpectedReturn, "a Gamma site", exact=closed_form(initial, lambda p: p["a"] / p["b"]))


def multivariate_normal() -> Problem:
    """x ~ N(m, LLᵀ); f = xᵀAx, J = −tr(ALLᵀ) − mᵀAm."""
    initial = {"m": [0.5, -0.3], "scale_tril": [[1.0, 0.0], [0.4, 0.7]]}
    a = [[1.0, 0.3], [0.3, 2.0]]

    def model() -> None:
        p, matrix = parameters(initial), torch.tensor(a) * 1.0
        x = ppgrad.policy("x", dist.MultivariateNormal(p["m"], scale_tril=p["scale_tril"].tril()))
        ppgrad.cost("f", x @ matrix @ x)

    def value(p: Parameters) -> Tensor:
        matrix, tril = torch.tensor(a) * 1.0, p["scale_tril"].tril()
        return -(matrix @ tril @ tril.T).trace() - p["m"] @ matrix @ p["m"]

    return Problem(model, ExpectedReturn, "a full covariance", exact=closed_form(initial, value))


def log_normal() -> Problem:
    """x = exp(z), z ~ N(μ, σ), as a transformed distribution; J = exp(μ + σ²/2)."""
    initial = {"mu": 0.2, "sigma": 0.5}

    def model() -> None:
        p = parameters(initial)
        fn = dist.TransformedDistribution(
            dist.Normal(p["mu"], p["sigma"]), [dist.transforms.ExpTransform(cache_size=1)]
        )
        ppgrad.reward("r", ppgrad.policy("x", fn))

    def value(p: Parameters) -> Tensor:
        return (p["mu"] + p["sigma"] ** 2 / 2).exp()

    return Problem(model, ExpectedReturn, "a cached transform", exact=closed_form(initial, value))


def independent_normal() -> Problem:
    """x ~ N(m, diag s²) with ``to_event``; r = x₀x₁ − Σ x²."""
    initial = {"m": [0.5, -1.0], "s": [0.6, 0.9]}

    def model() -> None:
        p = parameters(initial)
        x = ppgrad.policy("x", dist.Normal(p["m"], p["s"]).to_event(1))
        ppgrad.reward("r", x[0] * x[1] - (x**2).sum())

    def value(p: Parameters) -> Tensor:
        return p["m"][0] * p["m"][1] - (p["m"] ** 2 + p["s"] ** 2).sum()

    return Problem(model, ExpectedReturn, "an Independent site", exact=closed_form(initial, value))


def mixture() -> Problem:
    """x ~ Σ w_k N(m_k, 1); r = −x², J = −Σ w_k (m_k² + 1)."""
    initial = {"logits": [0.2, -0.4], "m": [-1.0, 1.5]}

    def model() -> None:
        p = parameters(initial)
        components = dist.Normal(p["m"], 1.0)
        x = ppgrad.policy("x", dist.MixtureSameFamily(dist.Categorical(logits=p["logits"]), components))
        ppgrad.cost("f", x**2)

    def value(p: Parameters) -> Tensor:
        return -(p["logits"].softmax(-1) * (p["m"] ** 2 + 1)).sum()

    return Problem(model, ExpectedReturn, "a mixture", exact=closed_form(initial, value))


def normal_chain() -> Problem:
    """x ~ N(μ, 1), y ~ N(wx, 1); r = xy − y², so that x acts on y through its parameters."""
    initial = {"mu": 0.5, "w": 0.8}

    def model() -> None:
        p = parameters(initial)
        x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0))
        y = ppgrad.policy("y", dist.Normal(p["w"] * x, 1.0))
        ppgrad.reward("r", x * y - y**2)

    def value(p: Parameters) -> Tensor:
        return (p["w"] - p["w"] ** 2) * (p["mu"] ** 2 + 1) - 1

    return Problem(model, ExpectedReturn, "one site feeding another", exact=closed_form(initial, value))


def gamma_rate() -> Problem:
    """x ~ Gamma(5/2, b); f = x², J = −a (a + 1) / b²."""
    initial = {"b": 1.4}

    def model() -> None:
        ppgrad.cost("f", ppgrad.policy("x", dist.Gamma(torch.tensor(2.5), parameters(initial)["b"])) ** 2)

    return Problem(
        model, ExpectedReturn, "a Gamma's rate", exact=closed_form(initial, lambda p: -2.5 * 3.5 / p["b"] ** 2)
    )


def normal_vectors() -> Problem:
    """x_n ~ N(m_n, LLᵀ) in a plate; f = (Σ_n x_n₀ x_n₁ − 1)², which couples them."""
    initial = {"m": [[0.5, -0.3], [0.2, 0.4]], "scale_tril": [[0.8, 0.0], [-0.3, 0.6]]}

    def model() -> None:
        p = parameters(initial)
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.MultivariateNormal(p["m"], scale_tril=p["scale_tril"].tril()))
        ppgrad.cost("f", (x.prod(-1).sum(-1) - 1) ** 2)

    def value(p: Parameters) -> Tensor:
        tril = p["scale_tril"].tril()
        cov = tril @ tril.T
        means = p["m"].prod(-1) + cov[0, 1]
        variances = p["m"][:, 0] ** 2 * cov[1, 1] + p["m"][:, 1] ** 2 * cov[0, 0] + cov[0, 0] * cov[1, 1]
        variances = variances + 2 * p["m"].prod(-1) * cov[0, 1] + cov[0, 1] ** 2
        return -variances.sum() - (means.sum() - 1) ** 2

    return Problem(model, ExpectedReturn, "vectors in a plate", exact=closed_form(initial, value))
