"""The conditional value at risk of the return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import Estimator, Facts, InvalidInput
from ppgrad.core.arguments import discount_factor, is_number
from ppgrad.engine.running.site import Site
from ppgrad.objectives._shared.lanes import others_of_each
from ppgrad.objectives.expected_return import return_costs
from ppgrad.objectives.joint import JointObjective


class CVaR(JointObjective):
    """J = E[R | R among the worst ``level`` share], R the return; also known as expected shortfall.

    It is estimated from K runs by the mean of the worst level × K of them, the last one in part
    where that is no integer. Whatever the estimator, the gradient is unbiased for the expectation of
    that mean. It differs from J by O(1/K) where the return has a density at its quantile, and by
    O(1/√K) where no return lies between two values that are both quantiles. A draw is charged with
    what its run changes in the mean: by how much its return is below the quantile, here that of the
    other runs. In the paper it is that of all runs, at a bias of O(1/√K).

    Args:
        estimator: serves every site that nothing else chooses for.
        level: share of the worst returns, in (0, 1).
        discount: γ, as in `ExpectedReturn`.
        num_importance: K; level × K of 1 or more makes sense of ``level``.
        over: a plate whose elements are runs, such as the episodes of a rollout; see `JointObjective`.
        options: see `Objective`; ``num_particles`` such estimates are averaged, K runs each.

    Raises:
        InvalidInput: ``level`` is outside of (0, 1).

    Source: Tamar, Glassner & Mannor (2015), Optimizing the CVaR via sampling, eq. 6 and 7;
    Rockafellar & Uryasev (2000), Optimization of conditional value-at-risk.
    """

    model_may_draw = True
    takes_elements = True

    def __init__(
        self,
        estimator: Estimator | None = None,
        *,
        level: float = 0.1,
        discount: float = 1.0,
        num_importance: int = 32,
        **options: Any,
    ):
        if not is_number(level) or not 0.0 < level < 1.0:
            raise InvalidInput(
                f"CVaR(level={level!r}): level is a share in (0, 1). Write CVaR(…, level=0.1), or ExpectedReturn(…) "
                "for all returns."
            )
        self.level = level
        discount_factor(type(self).__name__, discount)
        self.discount = discount
        super().__init__(estimator, num_importance=num_importance, **options)

    @property
    def facts(self) -> Facts:
        return Facts(source="Tamar, Glassner & Mannor (2015), eq. 6", biased=True, order="O(1/K)")

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        return return_costs(sites, self.discount)

    def value(self, costs: Tensor) -> Tensor:
        return -(costs.sort(-1, descending=True).values * self._weights(costs)).sum(-1)

    def credit(self, costs: Tensor) -> Tensor:
        joint = -self.value(costs).unsqueeze(-1)
        if costs.shape[-1] < 2:
            return joint
        others = others_of_each(costs).sort(-1, descending=True).values
        filled = torch.cat([others, others[..., -1:]], -1)
        return joint - (filled * self._weights(costs)).sum(-1)

    def _weights(self, costs: Tensor) -> Tensor:
        """The share that each of the sorted runs has in the mean of the worst: ``(K,)``."""
        # 0.1 × 30 is 3, whatever its last bit says.
        worst = max(round(self.level * costs.shape[-1], 9), 1.0)
        return costs.new_tensor([min(max(worst - i, 0.0), 1.0) / worst for i in range(costs.shape[-1])])
