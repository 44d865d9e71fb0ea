"""Pathwise gradient: differentiate through the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pyro.distributions import TorchDistribution

from ppgrad.core import Estimator, Facts, Sample, SiteInfo
from ppgrad.core.distributions import (
    distribution_name,
    is_partly_reparameterized,
    is_straight_through,
)


@dataclass(frozen=True)
class Pathwise(Estimator):
    """∇ E[f(x)] = E[∇ f(g(ε, θ))] with x = g(ε, θ), also known as the reparameterization trick.

    It draws with ``rsample``, torch's implicit gradients (Gamma, Beta, Dirichlet, …) included, and
    adds no term of its own: the cost carries the gradient.

    Needs a cost that is differentiable in the value, kinks allowed. Where the cost jumps the
    gradient of the jump is missing; where no gradient reaches any cost the objective warns, and
    under ``strict=True`` raises.

    Source: Kingma & Welling (2014), section 2.4; implicit: Figurnov et al. (2018), eq. 5.
    """

    facts: ClassVar[Facts] = Facts(
        source="Kingma & Welling (2014), Auto-Encoding Variational Bayes, section 2.4",
        reparameterized=True,
    )

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        name = distribution_name(site.fn)
        if not site.fn.has_rsample:
            return f"{name} has no reparameterized sample"
        if is_straight_through(site.fn):
            return f"{name} passes a biased gradient through a discrete value"
        if is_partly_reparameterized(site.fn):
            return f"{name} is only partly reparameterized"
        return None

    def sample(self, fn: TorchDistribution) -> Sample:
        return Sample(fn.rsample())
