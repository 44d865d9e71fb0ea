"""A mixture of Gaussians: global means under a guide, each datum's component summed out or drawn.

    m_k ~ N(0, 3²),   z_n ~ Categorical(softmax(w)),   x_n | z_n ~ N(m[z_n], 1),   q(m_k) = N(μ_k, σ_k²), σ = e^λ.

With ``latent="summed"`` the components are marked ``infer={"enumerate": "parallel"}``, and the bound is

    ELBO(w, μ, λ) = Σ_n E_q[log Σ_k softmax(w)_k N(x_n; m_k, 1)] − Σ_k KL(N(μ_k, σ_k²) ‖ N(0, 3²)),

whose expectation the product of two Gauss–Hermite rules gives to rounding. With ``latent="drawn"`` the guide draws
z_n ~ Categorical(softmax(a_n)), and with r = softmax(a) the bound has a closed form:

    ELBO(w, μ, λ, a) = Σ_n Σ_k r_nk (log softmax(w)_k + log N(x_n; μ_k, 1) − ½ σ_k² − log r_nk) − Σ_k KL.

Summed out, the bound is tighter, and no draw of a component adds to the variance of a gradient.

Source: Bishop (2006), Pattern recognition and machine learning, section 10.2; Abramowitz & Stegun (1964), eq. 25.4.46.
"""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad

LATENTS = ("summed", "drawn")
COMPONENTS = 2
NODES = 80
PRIOR = 3.0


def initial(data: int, latent: str) -> dict[str, Tensor]:
    """μ, λ and w, each of shape (2,), the guide's first; of drawn components also a, shape (N, 2)."""
    tilt = torch.linspace(-1.0, 1.0, data).unsqueeze(-1)
    drawn = {"assignment": torch.cat([-tilt, tilt], -1)} if latent == "drawn" else {}
    means = {"loc": torch.tensor([-1.0, 0.7]), "log_scale": torch.tensor([-1.0, -0.7])}
    return means | drawn | {"weights": torch.tensor([0.2, -0.1])}


def observations(data: int) -> Tensor:
    """x, shape (N,): two heaps; the same at every call."""
    place = torch.linspace(-1.0, 1.0, data)
    return 1.8 * torch.sign(place) + 0.6 * torch.sin(7.0 * place)


def model(data: int, latent: str) -> None:
    weights = pyro.param("weights", initial(data, latent)["weights"])
    with pyro.plate("components", COMPONENTS):
        means = pyro.sample("means", dist.Normal(0.0, PRIOR))
    with pyro.plate("data", data):
        infer = {"enumerate": "parallel"} if latent == "summed" else None
        z = pyro.sample("z", dist.Categorical(logits=weights), infer=infer)
        pyro.sample("x", dist.Normal(means[z], 1.0), obs=observations(data))


def guide(data: int, latent: str) -> None:
    place = {name: pyro.param(name, value) for name, value in initial(data, latent).items() if name != "weights"}
    with pyro.plate("components", COMPONENTS):
        pyro.sample("means", dist.Normal(place["loc"], place["log_scale"].exp()))
    if latent == "drawn":
        with pyro.plate("data", data):
            pyro.sample("z", dist.Categorical(logits=place["assignment"]))


def divergence(loc: Tensor, log_scale: Tensor) -> Tensor:
    """Σ_k KL(N(μ_k, σ_k²) ‖ N(0, 3²))."""
    return (math.log(PRIOR) - log_scale + ((2 * log_scale).exp() + loc**2) / (2 * PRIOR**2) - 0.5).sum()


def normal(x: Tensor, mean: Tensor) -> Tensor:
    """log N(x; mean, 1)."""
    return -0.5 * (x - mean) ** 2 - 0.5 * math.log(2 * math.pi)


def bound_summed(x: Tensor, loc: Tensor, log_scale: Tensor, weights: Tensor) -> Tensor:
    """The ELBO with components summed out, by quadrature over both means; nothing of Pyro or of ppgrad in it."""
    nodes, shares = (torch.as_tensor(part) for part in np.polynomial.hermite_e.hermegauss(NODES))
    shares = shares / shares.sum()
    first, second = loc + log_scale.exp() * nodes.unsqueeze(-1), torch.outer(shares, shares)
    terms = [weights.log_softmax(-1)[k] + normal(x.unsqueeze(-1), first[:, k]) for k in range(COMPONENTS)]
    joint = torch.logaddexp(terms[0].unsqueeze(-1), terms[1].unsqueeze(-2))
    return (joint * second).sum() - divergence(loc, log_scale)


def bound_drawn(x: Tensor, loc: Tensor, log_scale: Tensor, assignment: Tensor, weights: Tensor) -> Tensor:
    """The ELBO with components drawn, in closed form."""
    shares = assignment.log_softmax(-1)
    each = weights.log_softmax(-1) + normal(x.unsqueeze(-1), loc) - 0.5 * (2 * log_scale).exp() - shares
    return (shares.exp() * each).sum() - divergence(loc, log_scale)


def exact_gradient(data: int, latent: str) -> dict[str, Tensor]:
    values = initial(data, latent)
    leaves = {name: value.double().requires_grad_() for name, value in values.items()}
    bound = bound_drawn if latent == "drawn" else bound_summed
    gradients = torch.autograd.grad(bound(observations(data).double(), *leaves.values()), [*leaves.values()])
    return {name: gradient.to(values[name].dtype) for name, gradient in zip(leaves, gradients, strict=True)}


def problem(data: int = 6, latent: str = "summed") -> ppgrad.Problem:
    """A mixture of two Gaussians.

    Args:
        data: N, two or more.
        latent: the components are "summed" out of the likelihood, or "drawn" by the guide.
    """
    if latent not in LATENTS:
        raise ppgrad.InvalidInput(f"latent={latent!r}: write one of {', '.join(LATENTS)}.")
    if data < 2:
        raise ppgrad.InvalidInput(f"data={data}: it is an integer from 2 up.")
    return ppgrad.Problem(
        model=model,
        guide=guide,
        args=(data, latent),
        objective=ppgrad.ELBO,
        about=f"a mixture of two Gaussians, {data} data, components {latent}",
        exact=lambda: exact_gradient(data, latent),
    )
