"""The best of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

from torch import Tensor

from ppgrad.core import Estimator, InvalidInput
from ppgrad.core.arguments import discount_factor
from ppgrad.engine.running.site import Site
from ppgrad.objectives._shared.lanes import others_of_each
from ppgrad.objectives.expected_return import return_costs
from ppgrad.objectives.joint import JointObjective


class BestOf(JointObjective):
    """J = E[max(R_1, …, R_k)], the best return of k independent runs; pass@k where returns are 0 or 1.

    It is estimated from n ≥ k runs, without bias for any n: the mean over all subsets of k runs of
    their best return, Σ_i C(i−1, k−1) / C(n, k) R_(i) over the sorted returns. A draw of run i is
    charged with what its run adds: the mean over the subsets that hold it of max S − max S∖{i}.

    Args:
        estimator: serves every site that nothing else chooses for.
        k: how many tries count, from 1 up; 1 is the expected return.
        discount: γ, as in `ExpectedReturn`.
        num_importance: n ≥ k, the runs of one estimate; None for the larger of k and 8.
        over: a plate whose elements are runs, such as the episodes of a rollout; see `JointObjective`.
        options: see `Objective`; ``num_particles`` such estimates are averaged, n runs each.

    Raises:
        InvalidInput: ``k`` is no integer from 1 up, or ``num_importance`` is less than k.

    Source: Chen et al. (2021), Evaluating large language models trained on code, eq. 1;
    Walder & Karkhanis (2025), Pass@K policy optimization, theorems 2 and 3.
    """

    model_may_draw = True
    takes_elements = True

    def __init__(
        self,
        estimator: Estimator | None = None,
        *,
        k: int = 2,
        discount: float = 1.0,
        num_importance: int | None = None,
        **options: Any,
    ):
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InvalidInput(f"BestOf(k={k!r}): k is an integer from 1 up.")
        super().__init__(estimator, num_importance=max(k, 8) if num_importance is None else num_importance, **options)
        if self.num_importance < k and self.over is None:
            raise InvalidInput(
                f"BestOf(k={k}, num_importance={num_importance}): the best of {k} needs as many runs. "
                f"Write num_importance={k} or more."
            )
        self.k = k
        discount_factor(type(self).__name__, discount)
        self.discount = discount

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        return return_costs(sites, self.discount)

    def value(self, costs: Tensor) -> Tensor:
        if costs.shape[-1] < self.k:
            raise InvalidInput(f"BestOf(k={self.k}) has {costs.shape[-1]} runs. Write num_importance={self.k} or more.")
        return _mean_best(-costs, self.k)

    def credit(self, costs: Tensor) -> Tensor:
        runs, k = costs.shape[-1], self.k
        gains = -costs
        if runs == 1:
            return costs
        others = others_of_each(gains)
        # The subsets that hold run i are all subsets less those of the other runs.
        rest = comb(runs - 1, k) / comb(runs, k)
        with_run = _mean_best(gains, k).unsqueeze(-1) - (rest * _mean_best(others, k) if rest else 0.0)
        return (1 - rest) * _mean_best(others, max(k - 1, 1)) - with_run


def _mean_best(gains: Tensor, k: int) -> Tensor:
    """The mean over all subsets of k of n numbers of the largest: ``(…, n)`` to ``(…)``."""
    n = gains.shape[-1]
    shares = gains.new_tensor([comb(i, k - 1) / comb(n, k) for i in range(n)])
    return (gains.sort(-1).values * shares).sum(-1)
