"""Gumbel-softmax: a continuous relaxation of a discrete draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution

from ppgrad.core import Estimator, Facts, Needs, Sample, SiteInfo
from ppgrad.core.arguments import flag, positive
from ppgrad.estimators.discrete.relaxation import (
    as_value,
    category_logits,
    exponential_noise,
    not_relaxable,
    one_hot_argmax,
    perturbed,
)


@dataclass(frozen=True)
class GumbelSoftmax(Estimator):
    """∇ E[f(softmax((log π + g) / temperature))], g Gumbel noise; also known as the Concrete relaxation.

    Biased: it is the gradient of another program, the relaxed one, whose loss it also reports; with
    ``hard`` the program gets the one-hot value and only the gradient is that of the relaxed one
    (straight-through Gumbel-softmax). The bias falls with the temperature, and the variance rises.

    Args:
        temperature: above 0.
        hard: the value is discrete, its gradient relaxed.

    Needs Bernoulli or OneHotCategorical elements, and a program that is differentiable in them.

    Source: Jang, Gu & Poole (2017), Categorical reparameterization with Gumbel-softmax, eq. 2;
    Maddison, Mnih & Teh (2017), The Concrete distribution, eq. 10.
    """

    facts: ClassVar[Facts] = Facts(
        source="Jang, Gu & Poole (2017), Categorical Reparameterization with Gumbel-Softmax, eq. 2",
        biased=True,
        order="falls with the temperature",
        reparameterized=True,
    )
    needs: ClassVar[Needs] = Needs(outside_support=True)

    temperature: float = 0.5
    hard: bool = False

    def __post_init__(self) -> None:
        positive(type(self).__name__, "temperature", self.temperature, 0.5)
        flag(type(self).__name__, "hard", self.hard)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(temperature=1.0, hard=True))

    def refuses(self, site: SiteInfo) -> str | None:
        return not_relaxable(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        logits = category_logits(fn)
        z = perturbed(logits, exponential_noise(logits))
        weights = torch.softmax(z / self.temperature, -1)
        if self.hard:
            weights = one_hot_argmax(z) + (weights - weights.detach())
        return Sample(as_value(fn, weights))
