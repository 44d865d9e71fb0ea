"""Sticking the landing: a pathwise gradient without the score in the density of its own value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pyro.distributions import TorchDistribution

from ppgrad.core import Estimator, Facts, Needs, Sample, SiteInfo
from ppgrad.core.distributions import not_reparameterized


@dataclass(frozen=True)
class StickingTheLanding(Estimator):
    """Pathwise, with log q(z; ⊥φ) in place of log q(z; φ): the term ∂_φ log q, of mean zero, is left out.

    Where q is the exact posterior, the variance is zero. Without a density in the cost it is
    `Pathwise`.

    Refuses importance-weighted bounds of two samples or more, where that term has another mean.

    Source: Roeder, Wu & Duvenaud (2017), Sticking the landing, eq. 8.
    """

    facts: ClassVar[Facts] = Facts(
        source="Roeder, Wu & Duvenaud (2017), Sticking the Landing, eq. 8",
        assumes="the cost does not jump",
        reparameterized=True,
    )
    needs: ClassVar[Needs] = Needs(fixed_density=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        if site.num_importance > 1:
            return "the term that it leaves out has no mean of zero in an importance-weighted bound"
        return not_reparameterized(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        return Sample(fn.rsample())
