"""Measure-valued gradient: the difference of two expectations for each scalar parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Exponential, Normal, Poisson

from ppgrad.core import Draw, Estimator, Facts, Memory, Sample, Signal, SiteInfo
from ppgrad.core.discrete import element, over_event
from ppgrad.core.distributions import distribution_name


@dataclass(frozen=True)
class MeasureValued(Estimator):
    """∂_θ E[f] = c_θ (E[f(x⁺)] − E[f(x⁻)]), also known as the weak derivative.

    With R ~ Rayleigh(1), M ~ double-sided Maxwell, U uniform, E ~ Exponential(1):

    | parameter | c | x⁺ | x⁻ |
    | --- | --- | --- | --- |
    | Normal loc | 1 / (σ√2π) | μ + σR | μ − σR |
    | Normal scale | 1 / σ | μ + σM | μ + σMU, or a Normal of its own |
    | Bernoulli p | 1 | 1 | 0 |
    | Poisson rate | 1 | x + 1 | x |
    | Exponential rate | 1 / λ | x | x + E/λ, which is Erlang(2) |

    Elements that a later cost couples take turns, two branches each for every scalar parameter, so
    the cost adds up; elements of a plate share. Jumps of f are no obstacle.

    Args:
        coupled: x⁻ shares the noise of x⁺.

    Needs Normal, Bernoulli, Poisson or Exponential elements.

    Source: Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning, section 6,
    table 1; Heidergott & Vázquez-Abad (2000).
    """

    facts: ClassVar[Facts] = Facts(source="Mohamed et al. (2020), Monte Carlo Gradient Estimation, section 6")
    element_by_element: ClassVar[bool] = True

    coupled: bool = True

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(coupled=False))

    def refuses(self, site: SiteInfo) -> str | None:
        if isinstance(element(site.fn), Normal | Bernoulli | Poisson | Exponential):
            return None
        return f"{distribution_name(site.fn)} is neither Normal, Bernoulli, Poisson nor Exponential"

    def sample(self, fn: TorchDistribution) -> Sample:
        with torch.no_grad():
            value = fn.rsample() if fn.has_rsample else fn.sample()
        value = value.detach()
        base = element(fn)
        if isinstance(base, Normal):
            return self._normal(fn, value)
        if isinstance(base, Bernoulli):
            pair, parameter = (torch.ones_like(value), torch.zeros_like(value)), base.probs
            coefficient = torch.ones_like(value)
        elif isinstance(base, Poisson):
            other = value if self.coupled else fn.sample().detach()
            pair, parameter, coefficient = (value + 1, other), base.rate, torch.ones_like(value)
        else:
            rate = base.rate.detach().expand(fn.shape())
            other = value if self.coupled else -torch.log1p(-_uniform(value)) / rate
            longer = other - torch.log1p(-_uniform(value)) / rate
            pair, parameter, coefficient = (value, longer), base.rate, 1 / rate
        extras = {"parameter_0": parameter.expand(fn.shape()), "coefficient_0": coefficient}
        return Sample(value, extras, torch.stack(pair))

    def _normal(self, fn: TorchDistribution, value: Tensor) -> Sample:
        base = element(fn)
        loc, scale = base.loc.expand(fn.shape()), base.scale.expand(fn.shape())
        m, s = loc.detach(), scale.detach()
        up = _rayleigh(value)
        down = up if self.coupled else _rayleigh(value)
        maxwell = _double_maxwell(value)
        inner = maxwell * _uniform(value) if self.coupled else torch.normal(torch.zeros_like(value), 1.0)
        alternatives = torch.stack([m + s * up, m - s * down, m + s * maxwell, m + s * inner])
        extras = {
            "parameter_0": loc,
            "coefficient_0": 1 / (s * math.sqrt(2 * math.pi)),
            "parameter_1": scale,
            "coefficient_1": 1 / s,
        }
        return Sample(value, extras, alternatives)

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        costs = signal.alternatives
        terms = [
            draw.extras[f"parameter_{i}"] * draw.extras[f"coefficient_{i}"] * (costs[2 * i] - costs[2 * i + 1])
            for i in range(len(costs) // 2)
        ]
        return over_event(torch.stack(terms).sum(0), draw.event_dim)


def _uniform(like: Tensor) -> Tensor:
    return torch.rand(like.shape, dtype=like.dtype, device=like.device)


def _rayleigh(like: Tensor) -> Tensor:
    return (-2 * torch.log1p(-_uniform(like))).sqrt()


def _double_maxwell(like: Tensor) -> Tensor:
    normals = torch.normal(torch.zeros(3, *like.shape, dtype=like.dtype, device=like.device), 1.0)
    sign = 1 - 2 * (_uniform(like) < 0.5).to(like.dtype)
    return sign * normals.square().sum(0).sqrt()
