"""Doubly reparameterized gradient of an importance-weighted bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pyro.distributions import TorchDistribution

from ppgrad.core import Estimator, Facts, Needs, Sample, SiteInfo
from ppgrad.core.distributions import not_reparameterized


@dataclass(frozen=True)
class DReG(Estimator):
    """∇_φ E[log (1/K) Σ_k w_k] = E[Σ_k w̃_k² ∂log w_k/∂z_k ∂z_k/∂φ], w̃ the normalized weights.

    The weights' own dependence on φ, at a z_k held fixed, is reparameterized once more instead of
    differentiated. So the signal-to-noise ratio grows with K where that of `Pathwise` falls. It draws
    as `Pathwise` does; the objective weighs the path by w̃² and runs the guide and the model once more,
    at the values drawn and with all parameters held fixed, for ∂log w/∂z alone: through the layers of a
    hierarchical guide as well. `RenyiELBO` weighs by α w̃ + (1 − α) w̃²; under `ELBO`, K = 1, it is
    sticking the landing.

    Needs a guide's sites under one of these three objectives, and serves all reparameterized sites of
    the guide or none; other sites of it take any estimator.

    Source: Tucker, Lawson, Gu & Maddison (2019), Doubly reparameterized gradient estimators for Monte
    Carlo objectives, eq. 8 and 12; layers: Bauer & Mnih (2021), Generalized DReGs, section 4.
    """

    facts: ClassVar[Facts] = Facts(
        source="Tucker et al. (2019), DReG, eq. 8",
        assumes="the cost does not jump",
        reparameterized=True,
    )
    needs: ClassVar[Needs] = Needs(fixed_density=True, fixed_parameters=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        if not site.weighs_guide:
            return "the objective has no weights p / q of a guide; IWELBO, RenyiELBO and ELBO have"
        return not_reparameterized(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        return Sample(fn.rsample())
