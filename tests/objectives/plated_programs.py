"""Random programs with plates whose log evidence is known."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppgrad.testing.problems import parameters

Latent = Literal["none", "normal", "bernoulli"]


@dataclass(frozen=True)
class PlatedProgram:
    """x = g + 1.5 a + z + noise: g global, a of each of the outer slices, z of each of the inner ones.

    Args:
        outer, inner: sizes of the plates.
        drawn: how many slices of each plate are subsampled.
        is_global: whether there is a g.
        a, z: what kind of latents there are; not both none.
        noise: standard deviation of x.
        mask: which elements are observed, ``(outer, inner)``.
        data: of all elements.
        follows: how much the guide's z depends on its a.
        guess: a parameter of the guide.
    """

    outer: int
    inner: int
    drawn: tuple[int, int]
    is_global: bool
    a: Latent
    z: Latent
    noise: float
    mask: Tensor
    data: Tensor
    follows: float
    guess: float

    @property
    def slices(self) -> str:
        """The plates whose slices are independent, in the order of their names."""
        if self.is_global:
            return ""
        return "outer" if self.a != "none" else "inner, outer"

    def _plates(self) -> tuple[Any, Any]:
        outer = pyro.plate("outer", self.outer, subsample_size=self.drawn[0], dim=-2)
        return outer, pyro.plate("inner", self.inner, subsample_size=self.drawn[1], dim=-1)

    def model(self) -> None:
        outer, inner = self._plates()
        x = pyro.sample("g", dist.Normal(0.0, 1.0)) if self.is_global else torch.zeros(())
        with outer as rows:
            if self.a != "none":
                x = x + 1.5 * pyro.sample("a", _prior(self.a))
            with inner as columns:
                if self.z != "none":
                    x = x + pyro.sample("z", _prior(self.z))
                here = (rows.unsqueeze(-1), columns)
                pyro.sample("x", dist.Normal(x, self.noise).mask(self.mask[here]), obs=self.data[here])

    def guide(self) -> None:
        p, a = parameters({"guess": self.guess, "scale": 1.3}), torch.zeros(())
        outer, inner = self._plates()
        if self.is_global:
            pyro.sample("g", dist.Normal(p["guess"], 1.2))
        with outer:
            if self.a != "none":
                a = pyro.sample("a", _proposal(self.a, p["guess"], p["scale"]))
            with inner:
                if self.z != "none":
                    pyro.sample("z", _proposal(self.z, p["guess"] + self.follows * a, p["scale"]))

    def log_evidence(self) -> float:
        """Of the observed elements: a Gaussian for each of all values of the discrete latents, by their probability."""
        seen = self.mask.reshape(-1)
        rows = torch.arange(self.outer * self.inner).div(self.inner, rounding_mode="floor")[seen]
        count = len(rows)
        same_row = (rows[:, None] == rows).double()
        covariance = torch.eye(count, dtype=torch.double) * (self.noise**2 + (self.z == "normal"))
        covariance += 2.25 * (self.a == "normal") * same_row + float(self.is_global)
        bits = (self.outer if self.a == "bernoulli" else 0) + (count if self.z == "bernoulli" else 0)
        values = torch.tensor(list(itertools.product((0.0, 1.0), repeat=bits)), dtype=torch.double)
        means = torch.zeros(len(values), count, dtype=torch.double)
        if self.a == "bernoulli":
            means = means + 1.5 * values[:, : self.outer][:, rows]
        if self.z == "bernoulli":
            means = means + values[:, bits - count :]
        prior = dist.Bernoulli(torch.tensor(0.4, dtype=torch.double)).log_prob(values).sum(-1)
        likelihood = dist.MultivariateNormal(means, covariance).log_prob(self.data.reshape(-1)[seen].double())
        return float((prior + likelihood).logsumexp(0))


def _prior(kind: Latent) -> dist.TorchDistribution:
    return dist.Normal(0.0, 1.0) if kind == "normal" else dist.Bernoulli(0.4)


def _proposal(kind: Latent, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
    return dist.Normal(loc, scale) if kind == "normal" else dist.Bernoulli(logits=loc)


def plated_program(seed: int) -> PlatedProgram:
    """The program of a seed. Only where slices are apart they are subsampled."""
    source = random.Random(seed)
    kinds: tuple[Latent, ...] = ("none", "normal", "bernoulli")
    a, z = source.choice([pair for pair in itertools.product(kinds, kinds) if pair != ("none", "none")])
    outer, inner, is_global = source.randint(2, 3), source.randint(2, 3), source.random() < 0.25
    drawn = (
        source.randint(1, outer) if not is_global else outer,
        source.randint(1, inner) if not is_global and a == "none" else inner,
    )
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(outer, inner, generator=generator) < source.choice((1.0, 0.7))
    mask[0, 0] = True
    data = 1.0 + 1.5 * torch.randn(outer, inner, generator=generator)
    noise, follows = source.uniform(0.5, 1.5), source.choice((0.0, 0.6))
    return PlatedProgram(outer, inner, drawn, is_global, a, z, noise, mask, data, follows, source.uniform(-0.3, 0.5))
