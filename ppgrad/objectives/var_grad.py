"""The evidence lower bound, its gradient that of a variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import Estimator, Facts, InvalidInput, sum_lane
from ppgrad.engine.running.record import Record, Served
from ppgrad.estimators import ScoreFunction
from ppgrad.objectives._shared.lanes import total_of_lanes
from ppgrad.objectives._shared.requirements import check_only_scores
from ppgrad.objectives.elbo import ELBO
from ppgrad.objectives.objective import Objective


class VarGrad(ELBO):
    """The ELBO, with ∇_φ of ½ Var_k(log q_φ(z_k) / p(x, z_k)), the samples z_k held fixed.

    The variance is over the particles, with K − 1 in the denominator. Its gradient equals that of the
    score function with leave-one-out, each draw charged with the whole of its sample's log q − log p.
    The model's own parameters have the gradient of −log p. Written with each site's density as it is
    drawn from, so that masks and subsampling are right.

    ``ELBO(ScoreFunction(LeaveOneOut()))`` charges each draw only with what is downstream of it, and so
    has the lower variance where there are several sites.

    Args:
        estimator: None or ``ScoreFunction()``: every site is served so.
        num_particles: K ≥ 2.
        options: see `Objective`.

    Raises:
        InvalidInput: ``num_particles`` is less than 2, or ``analytic_kl`` is asked for.
        Unsupported: a site asks for another estimator.

    Source: Richter, Boustati, Nüsken, Ruiz & Akyildiz (2020), VarGrad, definition 2 and eq. 10.
    """

    def __init__(self, estimator: Estimator | None = None, *, num_particles: int = 8, **options: Any):
        if not isinstance(num_particles, bool) and num_particles == 1:
            raise InvalidInput("VarGrad(num_particles=1): a variance needs two particles. Write num_particles=2.")
        if options.get("analytic_kl"):
            raise InvalidInput(
                "VarGrad(analytic_kl=True): the variance is that of log q − log p of the draws. Write ELBO(…, "
                "analytic_kl=True)."
            )
        super().__init__(ScoreFunction() if estimator is None else estimator, num_particles=num_particles, **options)

    @property
    def facts(self) -> Facts:
        return Facts(source="Richter et al. (2020), VarGrad, definition 2")

    @property
    def wanted(self) -> type[Objective]:
        return ELBO

    def combine(self, records: Sequence[Record]) -> tuple[Tensor, Tensor, tuple[Served, ...]]:
        check_only_scores(records, "VarGrad()", "ELBO(…)")
        loss, direct, _ = super().combine(records)
        if not torch.is_grad_enabled():
            return loss, loss, ()
        log_ratios = torch.cat([_log_ratio(record) for record in records])
        half_variance = log_ratios.var() / 2
        return loss, direct + half_variance - half_variance.detach(), ()


def _log_ratio(record: Record) -> Tensor:
    """log q − log p of each particle, with the gradient of the scores alone: ``(particles,)``."""
    scores = [sum_lane(entry.draw.log_prob).reshape(-1) for entry in record.entries if entry.draw is not None]
    value = total_of_lanes(record.costs).detach()
    return value + sum((score - score.detach() for score in scores), torch.zeros_like(value))
