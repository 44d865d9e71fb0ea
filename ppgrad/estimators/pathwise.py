"""Pathwise gradient: differentiate through the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draws, Estimator, Facts, Sample, SharesNoise, SiteInfo
from ppgrad.core.distributions import not_reparameterized
from ppgrad.core.particle_noise import Antithetic, QuasiMonteCarlo, check_draws, not_drawable, quantile


@dataclass(frozen=True)
class Pathwise(Estimator, SharesNoise):
    """∇ E[f(x)] = E[∇ f(g(ε, θ))] with x = g(ε, θ), also known as the reparameterization trick.

    It draws with ``rsample``, torch's implicit gradients (Gamma, Beta, Dirichlet, …) included, and
    adds no term of its own: the cost carries the gradient.

    Args:
        draws: how particles share noise, ``Antithetic()`` or ``QuasiMonteCarlo()``; None for
            independent ones.

    Needs a cost that is differentiable in the value, kinks allowed. Where the cost jumps the
    gradient of the jump is missing; where no gradient reaches any cost the objective warns, and
    under ``strict=True`` raises.

    Source: Kingma & Welling (2014), section 2.4; implicit: Figurnov et al. (2018), eq. 5.
    """

    facts: ClassVar[Facts] = Facts(
        source="Kingma & Welling (2014), Auto-Encoding Variational Bayes, section 2.4",
        assumes="the cost does not jump",
        reparameterized=True,
    )

    draws: Draws | None = None

    def __post_init__(self) -> None:
        check_draws(type(self).__name__, self.draws)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(draws=Antithetic()), cls(draws=QuasiMonteCarlo()))

    def refuses(self, site: SiteInfo) -> str | None:
        reason = not_reparameterized(site.fn)
        return reason if reason is not None or self.draws is None else not_drawable(self.draws, site)

    def sample(self, fn: TorchDistribution) -> Sample:
        return Sample(fn.rsample())

    def sample_from(self, fn: TorchDistribution, uniform: Tensor) -> Sample:
        return Sample(quantile(fn, uniform))
