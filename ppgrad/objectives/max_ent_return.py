"""The expected return with an entropy bonus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ppgrad.core import Estimator, InvalidProgram
from ppgrad.core.arguments import discount_factor, flag, not_negative
from ppgrad.core.distributions import distribution_name, estimates_entropy
from ppgrad.engine.running.site import Site
from ppgrad.objectives.expected_return import ExpectedReturn, discounts_to_come, return_costs
from ppgrad.objectives.objective import Objective


class MaxEntReturn(Objective):
    """J = E[Σ_t γ^t r_t − α Σ_i log π(a_i)], i over the policy sites: reward plus α times entropy.

    The entropy bonus is discounted by nothing. It is estimated by −log π at the action drawn; where
    the action carries no gradient, the gradient of its own −log π has mean zero and is left out. With
    ``exact`` it is the distribution's own entropy instead: less variance, where it has a closed form.

    Args:
        estimator: serves every site that nothing else chooses for.
        temperature: α ≥ 0, in units of the reward.
        exact: use the closed form of each policy site's entropy.
        discount: γ, as in `ExpectedReturn`.
        options: see `Objective`.

    Raises:
        InvalidInput: ``temperature`` is below 0 or not finite, or ``discount`` is outside of (0, 1].
        InvalidProgram: when run, with ``exact``: a policy site's entropy has no closed form.

    Source: Ziebart (2010), Modeling purposeful adaptive behavior, section 5; Haarnoja et al. (2018), eq. 1.
    """

    model_may_draw = ExpectedReturn.model_may_draw

    def __init__(
        self,
        estimator: Estimator | None = None,
        *,
        temperature: float = 0.1,
        exact: bool = False,
        discount: float = 1.0,
        **options: Any,
    ):
        not_negative("MaxEntReturn", "temperature", temperature, 0.1)
        flag("MaxEntReturn", "exact", exact)
        self.temperature = temperature
        self.exact = exact
        discount_factor(type(self).__name__, discount)
        self.discount = discount
        super().__init__(estimator, **options)

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        costs = return_costs(sites, self.discount)
        for i, site in enumerate(sites):
            if site.infer.get("policy") and site.kind in ("draw", "noise"):
                costs[i] = -self.temperature * (self._entropy(site) if self.exact else self._surprise(site))
        return costs

    def discounts(self, sites: Sequence[Site]) -> list[float]:
        return discounts_to_come(sites, self.discount)

    def _surprise(self, site: Site) -> Tensor:
        return -site.weighted_log_prob if site.carries_gradient or self.all_orders else -site.weighted_log_prob.detach()

    def _entropy(self, site: Site) -> Tensor:
        if estimates_entropy(site.fn):
            raise InvalidProgram(
                f"Site '{site.name}': {distribution_name(site.fn)} has no closed form of its entropy, only an "
                "estimate. Write MaxEntReturn(exact=False)."
            )
        try:
            return site.weighted(site.fn.entropy())
        except NotImplementedError as error:
            raise InvalidProgram(
                f"Site '{site.name}': {distribution_name(site.fn)} has no closed form of its entropy. Write "
                "MaxEntReturn(exact=False)."
            ) from error
