"""The expected return with an entropy bonus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ppgrad.core import Estimator, InvalidInput
from ppgrad.engine.record import Site
from ppgrad.objectives.expected_return import ExpectedReturn, return_costs
from ppgrad.objectives.objective import Objective


class MaxEntReturn(Objective):
    """J = E[Σ_t γ^t r_t − α Σ_i log π(a_i)], i over the policy sites: reward plus α times entropy.

    The entropy bonus is estimated by −log π at the action drawn, discounted by nothing. Where the
    action carries no gradient, the gradient of its own −log π has mean zero and is left out.

    Args:
        estimator: serves every site that nothing else chooses for.
        temperature: α ≥ 0, in units of the reward.
        discount: γ, as in `ExpectedReturn`.
        options: see `Objective`.

    Source: Ziebart (2010), Modeling purposeful adaptive behavior, section 5; Haarnoja et al. (2018), eq. 1.
    """

    model_may_draw = ExpectedReturn.model_may_draw

    def __init__(
        self, estimator: Estimator | None = None, *, temperature: float = 0.1, discount: float = 1.0, **options: Any
    ):
        if temperature < 0:
            raise InvalidInput(f"MaxEntReturn(temperature={temperature}): the temperature is 0 or more.")
        self.temperature = temperature
        self.discount = discount
        super().__init__(estimator, **options)

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        costs = return_costs(sites, self.discount)
        for i, site in enumerate(sites):
            if site.infer.get("policy") and site.kind in ("draw", "noise"):
                keeps = site.carries_gradient or self.all_orders
                log_prob = site.log_prob if keeps else site.log_prob.detach()
                costs[i] = self.temperature * log_prob
        return costs
