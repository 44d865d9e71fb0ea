"""The evidence lower bound, and the variance with its gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppgrad.core import Problem
from ppgrad.objectives import ELBO, VarGrad
from ppgrad.testing.problems.common import Parameters, bernoulli_latents, closed_form, parameters


def conjugate_elbo() -> Problem:
    """z ~ N(0, 1), x_n | z ~ N(z, 1); q = N(m, s)."""
    initial, data = {"m": 0.3, "s": 0.7}, (1.0, 2.0, -0.5)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("n", 3):
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(data) * 1.0)

    def guide() -> None:
        p = parameters(initial)
        pyro.sample("z", dist.Normal(p["m"], p["s"]))

    def value(p: Parameters) -> Tensor:
        likelihood = -0.5 * ((torch.tensor(data) - p["m"]) ** 2 + p["s"] ** 2).sum()
        return likelihood - 0.5 * (p["m"] ** 2 + p["s"] ** 2) + p["s"].log()

    return Problem(model, ELBO, "a Gaussian ELBO", guide, exact=closed_form(initial, value))


def discrete_elbo() -> Problem:
    """z_n ~ Bernoulli(⅓) in a plate, x_n | z_n ~ N(z_n w, 1) with w a parameter of the model."""
    initial, data, model, guide = bernoulli_latents()

    def value(p: Parameters) -> Tensor:
        total = torch.zeros(())
        for z, prior in ((0.0, 2 / 3), (1.0, 1 / 3)):
            q = torch.sigmoid(p["logits"] * (2 * z - 1))
            log_joint = torch.tensor(prior).log() - 0.5 * (torch.tensor(data) - z * p["w"]) ** 2
            total = total + (q * (log_joint - q.log())).sum()
        return total

    return Problem(model, ELBO, "a discrete guide", guide, exact=closed_form(initial, value))


def subsampled_elbo() -> Problem:
    """A global and a local latent, the local plate subsampled 2 of 4; the bound is the full one's."""
    initial, data = {"m": 0.2, "s": 0.6, "a": [0.1, -0.3, 0.5, 0.9]}, (1.0, 0.0, -1.0, 2.0)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("n", 4, subsample_size=2) as i:
            y = pyro.sample("y", dist.Normal(z, 1.0))
            pyro.sample("x", dist.Normal(y, 1.0), obs=(torch.tensor(data) * 1.0)[i])

    def guide() -> None:
        p = parameters(initial)
        pyro.sample("z", dist.Normal(p["m"], p["s"]))
        with pyro.plate("n", 4, subsample_size=2) as i:
            pyro.sample("y", dist.Normal(p["a"][i], 0.5))

    def value(p: Parameters) -> Tensor:
        local = (p["a"] - p["m"]) ** 2 + p["s"] ** 2 + (torch.tensor(data) - p["a"]) ** 2
        return -0.5 * local.sum() - 0.5 * (p["m"] ** 2 + p["s"] ** 2) + p["s"].log()

    return Problem(model, ELBO, "a subsampled plate", guide, exact=closed_form(initial, value))


def sequential_elbo() -> Problem:
    """A guide and a model that walk the same sequential plate, a global site before it."""
    initial, data = {"m": 0.3, "logits": [0.4, -0.6]}, (1.2, 0.1)

    def model() -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        for i in pyro.plate("i", 2):
            z = pyro.sample(f"z_{i}", dist.Bernoulli(torch.tensor(1 / 3)))
            pyro.sample(f"x_{i}", dist.Normal(z + w, 1.0), obs=torch.tensor(data[i]) * 1.0)

    def guide() -> None:
        p = parameters(initial)
        pyro.sample("w", dist.Normal(p["m"], 0.5))
        for i in pyro.plate("i", 2):
            pyro.sample(f"z_{i}", dist.Bernoulli(logits=p["logits"][i]))

    def value(p: Parameters) -> Tensor:
        total = -0.5 * p["m"] ** 2
        for z, prior in ((0.0, 2 / 3), (1.0, 1 / 3)):
            q = torch.sigmoid(p["logits"] * (2 * z - 1))
            likelihood = -0.5 * (torch.tensor(data) - z - p["m"]) ** 2
            total = total + (q * (math.log(prior) + likelihood - q.log())).sum()
        return total

    return Problem(model, ELBO, "a sequential plate in guide and model", guide, exact=closed_form(initial, value))


def var_grad() -> Problem:
    """The discrete bound of `discrete_elbo`, by the gradient of a variance."""
    problem = discrete_elbo()
    return replace(problem, objective=VarGrad, about="a bound, by a variance")
