"""The quadratic toy: every estimator's variance is known in closed form.

x ~ N(μ, σ) and a cost f(x) = (x − k)². With d = μ − k, E f = d² + σ², so that the return
J = −E f has the gradient

    ∂J/∂μ = −2d,        ∂J/∂σ = −2σ.

Both are with respect to σ itself, not its logarithm: σ is an unconstrained parameter here. With
x = μ + σε and ε ~ N(0, 1), one sample gives, up to the sign,

    score function    (x − k)² ε/σ   and   (x − k)² (ε² − 1)/σ,
    pathwise          2(x − k)       and   2(x − k) ε.

Variance of one sample; b is a constant baseline of the cost, ``Constant(-b)``, and u = d² − b:

    estimator                        ∂μ                                   ∂σ
    score                            d⁴/σ² + 14d² + 15σ²                  2d⁴/σ² + 60d² + 74σ²
    score, constant b                u²/σ² + 6u + 15σ² + 8d²              2u²/σ² + 20u + 74σ² + 40d²
    score, b = E f                   8d² + 10σ²                           40d² + 56σ²
    score, best b                    8d² + 6σ²    (b = d² + 3σ²)          40d² + 24σ²  (b = d² + 5σ²)
    score, leave-one-out of n        (8d² + 10σ²)/n                       (40d² + 56σ²)/n
                                     + (8d² + 2σ²)/(n(n − 1))             + (8d² + 8σ²)/(n(n − 1))
    pathwise                         4σ²                                  4d² + 8σ²

(the leave-one-out row is the variance of the mean over its n samples). The score function's grows
with d⁴/σ²: it sees the level of f where pathwise sees the slope, and a narrow policy blows it up.

Source: Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad


def program(mu: float, sigma: float, k: float) -> None:
    loc = pyro.param("mu", torch.tensor(float(mu)))
    scale = pyro.param("sigma", torch.tensor(float(sigma)))
    x = ppgrad.policy("x", dist.Normal(loc, scale))
    ppgrad.cost("f", (x - k) ** 2)


def exact_gradient(mu: float, sigma: float, k: float) -> dict[str, Tensor]:
    return {"mu": torch.tensor(-2.0 * (mu - k)), "sigma": torch.tensor(-2.0 * sigma)}


def problem(mu: float = 1.0, sigma: float = 1.0, k: float = 0.0) -> ppgrad.Problem:
    """N(μ, σ) against (x − k)².

    Args:
        mu: mean of the policy.
        sigma: its standard deviation, positive.
        k: where the cost is zero.
    """
    return ppgrad.Problem(
        model=program,
        objective=ppgrad.ExpectedReturn,
        about="a quadratic cost of one Gaussian action",
        args=(mu, sigma, k),
        exact=lambda: exact_gradient(mu, sigma, k),
    )
