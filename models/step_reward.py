"""A reward that jumps: pathwise says 0, and is wrong.

x ~ N(μ, σ) and r(x) = 1[x > c]. With z = (μ − c)/σ and φ, Φ the standard normal density and
distribution function, J = Φ(z), so that

    ∂J/∂μ = φ(z)/σ,        ∂J/∂σ = −z φ(z)/σ.

r is flat wherever it has a derivative, so E[r′(x)] = 0: the pathwise gradient is 0 whatever the
parameters, without any noise that could give it away. Integration by parts says what it misses,
the jump:

    ∇E[r(x)] = E[r′(x) ∇x] + (r(c⁺) − r(c⁻)) p(c) ∇x|_{x = c}.

The score function r(x) ∇log p(x) never differentiates r and stays unbiased. At μ = c and σ = 1 the
truth is ∂μ = 1/√(2π) = 0.398942; one sample of the score function has variance
½ − 1/(2π) = 0.340845, and with the baseline ½, ¼ − 1/(2π) = 0.090845.

Source: Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning;
the formulas are the derivatives of Φ(z).
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad


def program(mu: float, sigma: float, c: float) -> None:
    loc = pyro.param("mu", torch.tensor(float(mu)))
    scale = pyro.param("sigma", torch.tensor(float(sigma)))
    x = ppgrad.policy("x", dist.Normal(loc, scale))
    ppgrad.reward("above", (x > c).to(x.dtype))


def exact_gradient(mu: float, sigma: float, c: float) -> dict[str, Tensor]:
    z = (mu - c) / sigma
    density = math.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return {"mu": torch.tensor(density / sigma), "sigma": torch.tensor(-z * density / sigma)}


def problem(mu: float = 0.0, sigma: float = 1.0, c: float = 0.0) -> ppgrad.Problem:
    """N(μ, σ) against 1[x > c].

    Args:
        mu: mean of the policy.
        sigma: its standard deviation, positive.
        c: where the reward jumps from 0 to 1.
    """
    return ppgrad.Problem(
        model=program,
        objective=ppgrad.ExpectedReturn,
        about="a step reward, which has no slope for pathwise to follow",
        args=(mu, sigma, c),
        exact=lambda: exact_gradient(mu, sigma, c),
        smooth=False,
    )
