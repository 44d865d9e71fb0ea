"""Importance-weighted and Rényi bounds."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppgrad.core import Problem
from ppgrad.objectives import IWELBO, RenyiELBO
from ppgrad.testing.problems.common import Parameters, bernoulli_latents, bound_of_two, closed_form, parameters


def importance_discrete() -> Problem:
    """An importance-weighted bound of two samples, two Bernoulli latents in a plate: the sum of their bounds."""
    initial, data, model, guide = bernoulli_latents()

    def value(p: Parameters) -> Tensor:
        bounds = []
        for logit, x in zip(p["logits"], data, strict=True):
            z = torch.tensor([0.0, 1.0])
            log_q = torch.nn.functional.logsigmoid(logit * (2 * z - 1))
            prior = torch.tensor([2 / 3, 1 / 3]).log()
            likelihood = -0.5 * (x - z * p["w"]) ** 2 - 0.5 * math.log(2 * math.pi)
            bounds.append(bound_of_two(log_q.exp(), prior + likelihood - log_q))
        return torch.stack(bounds).sum()

    options = {"num_importance": 2}
    return Problem(
        model, IWELBO, "a discrete importance-weighted bound", guide, (), closed_form(initial, value), options
    )


def importance_mixed() -> Problem:
    """An importance-weighted bound of two samples, z ~ Bernoulli, then y | z ~ N(m_z, s)."""
    initial, datum = {"logit": 0.3, "m": [0.2, 0.9], "s": 0.7}, 0.8

    def model() -> None:
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
        y = pyro.sample("y", dist.Normal(z, 1.0))
        pyro.sample("x", dist.Normal(y, 1.0), obs=torch.tensor(datum) * 1.0)

    def guide() -> None:
        p = parameters(initial)
        z = pyro.sample("z", dist.Bernoulli(logits=p["logit"]))
        pyro.sample("y", dist.Normal(p["m"][0] * (1 - z) + p["m"][1] * z, p["s"]))

    def value(p: Parameters) -> Tensor:
        nodes = torch.linspace(-7, 7, 281, dtype=torch.float64)
        normal = torch.exp(-0.5 * nodes**2)
        normal = normal / normal.sum()
        q = torch.sigmoid(p["logit"])
        weights, log_weights = [], []
        for z, q_z in ((0.0, 1 - q), (1.0, q)):
            y = p["m"][int(z)] + p["s"] * nodes
            log_joint = math.log(0.5) - 0.5 * (y - z) ** 2 - 0.5 * (datum - y) ** 2 - math.log(2 * math.pi)
            log_q = q_z.log() - 0.5 * nodes**2 - p["s"].log() - 0.5 * math.log(2 * math.pi)
            weights.append(q_z * normal)
            log_weights.append(log_joint - log_q)
        return bound_of_two(torch.cat(weights), torch.cat(log_weights))

    options = {"num_importance": 2}
    return Problem(model, IWELBO, "a mixed importance-weighted bound", guide, (), closed_form(initial, value), options)


def renyi() -> Problem:
    """A Rényi bound of order 3 from two samples of three values."""
    initial, likelihood = {"logits": [0.2, -0.5, 0.4]}, (0.5, 0.2, 0.9)

    def model() -> None:
        z = pyro.sample("z", dist.Categorical(torch.ones(3) / 3))
        chances = torch.tensor(likelihood) * 1.0
        pyro.sample("x", dist.Bernoulli(chances.index_select(0, z.reshape(1)).squeeze(0)), obs=torch.tensor(1.0))

    def guide() -> None:
        pyro.sample("z", dist.Categorical(logits=parameters(initial)["logits"]))

    def value(p: Parameters) -> Tensor:
        log_q = p["logits"].log_softmax(-1)
        return bound_of_two(log_q.exp(), (torch.tensor(likelihood) / 3).log() - log_q, sharpness=-2.0)

    options = {"num_importance": 2, "alpha": 3.0}
    return Problem(model, RenyiELBO, "a Rényi bound", guide, (), closed_form(initial, value), options)


def renyi_continuous() -> Problem:
    """A Rényi bound of order 0.4 from two samples: z ~ N(0, 1), x | z ~ N(wz, 1), q = N(m, s)."""
    initial, datum = {"m": 0.2, "s": 0.8, "w": 0.6}, 1.3

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(parameters({"w": initial["w"]})["w"] * z, 1.0), obs=torch.tensor(datum) * 1.0)

    def guide() -> None:
        p = parameters({name: start for name, start in initial.items() if name != "w"})
        pyro.sample("z", dist.Normal(p["m"], p["s"]))

    def value(p: Parameters) -> Tensor:
        nodes = torch.linspace(-7, 7, 401, dtype=torch.float64)
        weights = torch.exp(-0.5 * nodes**2)
        z = p["m"] + p["s"] * nodes
        log_weights = -0.5 * z**2 - 0.5 * (datum - p["w"] * z) ** 2 + 0.5 * nodes**2 + p["s"].log()
        return bound_of_two(weights / weights.sum(), log_weights, sharpness=0.6)

    options = {"num_importance": 2, "alpha": 0.4}
    return Problem(model, RenyiELBO, "a continuous Rényi bound", guide, (), closed_form(initial, value), options)


def importance_hierarchical() -> Problem:
    """A bound of two samples: y ~ N(m, ½), k ~ Bernoulli(σ(a + y)), v ~ N(y + bk, s): layer on layer."""
    initial, datum = {"m": 0.4, "a": -0.3, "b": 0.8, "s": 0.7, "w": 0.5}, 1.1

    def model() -> None:
        w = parameters({"w": initial["w"]})["w"]
        y = pyro.sample("y", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.4)))
        v = pyro.sample("v", dist.Normal(w * y + k, 1.0))
        pyro.sample("x", dist.Normal(v, 1.0), obs=torch.tensor(datum) * 1.0)

    def guide() -> None:
        p = parameters({name: start for name, start in initial.items() if name != "w"})
        y = pyro.sample("y", dist.Normal(p["m"], 0.5))
        k = pyro.sample("k", dist.Bernoulli(logits=p["a"] + y))
        pyro.sample("v", dist.Normal(y + p["b"] * k, p["s"]))

    def value(p: Parameters) -> Tensor:
        nodes = torch.linspace(-6, 6, 49, dtype=torch.float64)
        normal = torch.exp(-0.5 * nodes**2)
        normal = normal / normal.sum()
        y, eps = (p["m"] + 0.5 * nodes).unsqueeze(-1), nodes
        weights, log_weights = [], []
        for k, prior in ((0.0, 0.6), (1.0, 0.4)):
            v = y + p["b"] * k + p["s"] * eps
            q_k = torch.sigmoid((p["a"] + y) * (2 * k - 1))
            log_joint = -0.5 * y**2 + math.log(prior) - 0.5 * (v - p["w"] * y - k) ** 2 - 0.5 * (datum - v) ** 2
            log_q = -0.5 * nodes.unsqueeze(-1) ** 2 + q_k.log() - 0.5 * eps**2 - p["s"].log()
            weights.append((normal.unsqueeze(-1) * normal * q_k).reshape(-1))
            log_weights.append((log_joint - log_q).reshape(-1))
        return bound_of_two(torch.cat(weights), torch.cat(log_weights))

    options = {"num_importance": 2}
    return Problem(model, IWELBO, "a bound of three layers", guide, (), closed_form(initial, value), options)
