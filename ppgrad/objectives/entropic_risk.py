"""The entropic risk of the return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ppgrad.core import Estimator, Facts, InvalidInput
from ppgrad.core.arguments import discount_factor, finite
from ppgrad.engine.running.site import Site
from ppgrad.objectives.expected_return import return_costs
from ppgrad.objectives.log_mean_exp import LogMeanExp


class EntropicRisk(LogMeanExp):
    """J_β = (1/β) log E[exp(β R)], R the return; β < 0 is averse to risk, β > 0 seeks it.

    It is estimated from K runs, and the gradient is unbiased for E[(1/β) log (1/K) Σ_k exp(β R_k)],
    which differs from J_β by O(1/K): the logarithm of a mean is below the mean's in expectation.

    Args:
        estimator: serves every site that nothing else chooses for.
        beta: not 0, in units of one over the return.
        discount: γ, as in `ExpectedReturn`.
        over: a plate whose elements are runs, such as the episodes of a rollout; see `JointObjective`.
        options: see `LogMeanExp`; ``num_importance`` is K.

    Raises:
        InvalidInput: ``beta`` is 0 or no finite number, or ``discount`` is outside of (0, 1].

    Source: Howard & Matheson (1972), Risk-sensitive Markov decision processes, eq. 2.
    """

    model_may_draw = True
    takes_elements = True

    def __init__(
        self, estimator: Estimator | None = None, *, beta: float = -1.0, discount: float = 1.0, **options: Any
    ):
        finite("EntropicRisk", "beta", beta, -1.0)
        if beta == 0.0:
            raise InvalidInput(
                "EntropicRisk(beta=0.0): the limit at 0 is the expected return. Write ExpectedReturn(…)."
            )
        self.beta = beta
        discount_factor(type(self).__name__, discount)
        self.discount = discount
        super().__init__(estimator, **options)

    @property
    def facts(self) -> Facts:
        return Facts(source="Howard & Matheson (1972), eq. 2", biased=True, order="O(1/K)")

    @property
    def sharpness(self) -> float:
        return self.beta

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        return return_costs(sites, self.discount)
