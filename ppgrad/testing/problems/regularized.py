"""Returns with an entropy bonus or a divergence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad
from ppgrad.core import Problem
from ppgrad.objectives import KLRegularized, MaxEntReturn
from ppgrad.testing.problems.common import Parameters, closed_form, parameters


def max_ent_return() -> Problem:
    """A Bernoulli and a Normal action, with an entropy bonus."""
    initial = {"logit": 0.7, "mu": 0.4, "sigma": 0.9}

    def model() -> None:
        p = parameters(initial)
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["logit"]))
        x = ppgrad.policy("x", dist.Normal(p["mu"] + b, p["sigma"]))
        ppgrad.cost("f", x**2)

    def value(p: Parameters) -> Tensor:
        q = torch.sigmoid(p["logit"])
        entropy = -q * q.log() - (1 - q) * (1 - q).log() + p["sigma"].log() + 0.5 * math.log(2 * math.pi * math.e)
        return -q * (p["mu"] + 1) ** 2 - (1 - q) * p["mu"] ** 2 - p["sigma"] ** 2 + 0.3 * entropy

    return Problem(
        model, MaxEntReturn, "an entropy bonus", exact=closed_form(initial, value), options={"temperature": 0.3}
    )


def kl_regularized() -> Problem:
    """x ~ N(μ, σ), b ~ Bernoulli(σ(a + x)); a divergence from N(0, 1) and a fair coin, as a reward."""
    initial = {"mu": 0.5, "sigma": 1.4, "a": 0.3}

    def model() -> None:
        p = parameters(initial)
        x = ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"]))
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["a"] + x))
        ppgrad.cost("f", x**2 - b)

    def value(p: Parameters) -> Tensor:
        nodes = torch.linspace(-8, 8, 2001, dtype=torch.float64)
        weights = torch.exp(-0.5 * nodes**2)
        q = torch.sigmoid(p["a"] + p["mu"] + p["sigma"] * nodes)
        coin = q * (2 * q).log() + (1 - q) * (2 * (1 - q)).log()
        divergence = (p["sigma"] ** 2 + p["mu"] ** 2 - 1) / 2 - p["sigma"].log()
        expected = ((weights / weights.sum()) * (q - 0.6 * coin)).sum()
        return expected - p["mu"] ** 2 - p["sigma"] ** 2 - 0.6 * divergence

    reference = {"x": dist.Normal(torch.tensor(0.0), 1.0), "b": dist.Bernoulli(torch.tensor(0.5))}
    options = {"reference": reference, "coefficient": 0.6}
    return Problem(model, KLRegularized, "a divergence", exact=closed_form(initial, value), options=options)


def kl_as_loss() -> Problem:
    """A Normal and a Bernoulli action that do not meet, ½ℓ² as a loss: each action's own divergence."""
    initial = {"mu": 0.5, "sigma": 0.8, "a": 0.3}

    def model() -> None:
        p = parameters(initial)
        x = ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"]))
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["a"]))
        ppgrad.cost("f", x**2 * (1 - b))

    def value(p: Parameters) -> Tensor:
        q = torch.sigmoid(p["a"])
        coin = q * (2 * q).log() + (1 - q) * (2 * (1 - q)).log()
        divergence = (p["sigma"] ** 2 + p["mu"] ** 2 - 1) / 2 - p["sigma"].log()
        return -(1 - q) * (p["mu"] ** 2 + p["sigma"] ** 2) - 0.6 * (divergence + coin)

    def reference(message: Mapping[str, Any]) -> Any:
        zero = torch.tensor(0.0)
        return dist.Normal(zero, 1.0) if message["name"] == "x" else dist.Bernoulli(zero + 0.5)

    options = {"reference": reference, "coefficient": 0.6, "kind": "k2", "as_": "loss"}
    return Problem(model, KLRegularized, "a divergence as a loss", exact=closed_form(initial, value), options=options)
