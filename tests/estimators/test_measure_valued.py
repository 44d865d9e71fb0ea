"""Measure-valued gradients of rates and of vectors: closed-form variances, refusals, branches."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import ppgrad
from ppgrad import ExpectedReturn, MeasureValued, Unsupported
from ppgrad.measurement import measure
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters

FAILURE_RATE = SUITE_FAILURE_RATE / 1000
A, B = 2.5, 1.4


def check(estimator: MeasureValued, model, mean: dict[str, torch.Tensor], variance: dict[str, torch.Tensor]) -> None:
    result = measure(ExpectedReturn(estimator), model, replicates=200_000, reference=mean)
    for name, expected in variance.items():
        error = torch.as_tensor(result.variance_mcse[name])
        gaps = [(torch.as_tensor(result.variance[name]) - expected, error)]
        gaps += [(torch.as_tensor(result.bias[name]), (expected / 200_000).sqrt())]
        for gap, standard_error in gaps:
            z = (gap.abs() - 1e-5 * (1 + expected)).clamp(min=0) / standard_error.clamp(min=1e-12)
            p_values = 2 * stats.norm.sf(z.numpy())
            assert (p_values > FAILURE_RATE / p_values.size).all(), f"{name}: {gap} ± {standard_error}"


@pytest.mark.parametrize("coupled", [True, False])
def test_gamma_rate(coupled: bool) -> None:
    """f = x: coupled it is −(a/b) E/b, otherwise (a/b) (x − y − E/b)."""

    def program() -> None:
        ppgrad.cost("f", ppgrad.policy("x", dist.Gamma(torch.tensor(A), parameters({"b": B})["b"])))

    variance = A**2 / B**4 * (1 if coupled else 2 * A + 1)
    check(MeasureValued(coupled), program, {"b": torch.tensor(A / B**2)}, {"b": torch.tensor(variance)})


@pytest.mark.parametrize("coupled", [True, False])
def test_exponential_rate(coupled: bool) -> None:
    def program() -> None:
        ppgrad.cost("f", ppgrad.policy("x", dist.Exponential(parameters({"b": B})["b"])))

    variance = 1 / B**4 * (1 if coupled else 3)
    check(MeasureValued(coupled), program, {"b": torch.tensor(1 / B**2)}, {"b": torch.tensor(variance)})


@pytest.mark.parametrize("parametrization", ["scale_tril", "covariance_matrix"])
def test_multivariate_normal_of_a_linear_cost(parametrization: str) -> None:
    """f = cᵀx: ∂_m is L⁻ᵀ diag(√(2/π) R) Lᵀc with R ~ Rayleigh(1)."""
    tril, c = torch.tensor([[0.8, 0.0], [-0.5, 1.2]]), torch.tensor([1.0, -0.7])
    second = tril if parametrization == "scale_tril" else tril @ tril.T

    def program() -> None:
        p = parameters({"m": [0.3, -0.4], "second": second.tolist()})
        x = ppgrad.policy("x", dist.MultivariateNormal(p["m"], **{parametrization: p["second"]}))
        ppgrad.cost("f", x @ c)

    variance = (torch.linalg.inv(tril).T ** 2) @ (tril.T @ c) ** 2 * (4 / math.pi - 1)
    check(MeasureValued(), program, {"m": -c, "second": torch.zeros(2, 2)}, {"m": variance})


def test_a_learned_concentration_is_refused() -> None:
    def program() -> None:
        p = parameters({"a": A, "b": B})
        ppgrad.cost("f", ppgrad.policy("x", dist.Gamma(p["a"], p["b"])))

    with pytest.raises(Unsupported, match=r"site 'x': the concentration of Gamma requires a gradient.*no closed form"):
        ppgrad.gradient(ExpectedReturn(MeasureValued()), program, seed=0)


@pytest.mark.parametrize(
    ("fn", "coupled", "branches"),
    [
        (lambda t: dist.Normal(t, t.exp()), True, 4),
        (lambda t: dist.Bernoulli(logits=t), False, 1),
        (lambda t: dist.Poisson(t.exp()), True, 1),
        (lambda t: dist.Poisson(t.exp()), False, 2),
        (lambda t: dist.Gamma(2.0, t.exp()), True, 1),
        (lambda t: dist.Categorical(logits=t * torch.arange(4.0)), True, 3),
        (lambda t: dist.Categorical(logits=t * torch.arange(4.0)), False, 8),
        (lambda t: dist.MultivariateNormal(t * torch.ones(3), torch.eye(3)), True, 12),
    ],
)
def test_branches(fn, coupled: bool, branches: int) -> None:
    def program() -> None:
        x = ppgrad.policy("x", fn(parameters({"t": 0.3})["t"]))
        ppgrad.cost("f", x.sum() * 1.0)

    result = measure(ExpectedReturn(MeasureValued(coupled)), program, replicates=2, reference={"t": torch.zeros(())})
    assert result.evaluations == 1 + branches
