"""The evidence lower bound, its gradient that of a variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import Estimator, Facts, InvalidInput
from ppgrad.engine.running.record import Record, Served
from ppgrad.estimators import ScoreFunction
from ppgrad.objectives._shared.lanes import RunsOfPart
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
        variances = [part.scale**2 * _log_ratios(part).var(-1).sum() / 2 for part in self._parts(records)]
        half_variance = sum(variances[1:], variances[0])
        return loss, direct + half_variance - half_variance.detach(), ()

    def _parts(self, records: Sequence[Record]) -> list[RunsOfPart]:
        shape = (1, self.num_particles)
        if len(records) > 1:
            return [RunsOfPart(records, -1, frozenset(), shape)]
        parts = [RunsOfPart(records, sites, plates, shape) for sites, plates in records[0].parts(True)]
        return [part for part in parts if any(entry.draw is not None for entry in part.entries(records[0]))]


def _log_ratios(part: RunsOfPart) -> Tensor:
    """log q − log p of each particle, and each slice, with the gradient of the scores alone: ``(1, *slices, K)``."""
    terms = []
    for record in part.records:
        entries = part.entries(record)
        scores = [entry.draw.log_prob - entry.draw.log_prob.detach() for entry in entries if entry.draw is not None]
        terms.append([*scores, *(entry.cost.detach() for entry in entries if entry.cost is not None)])
    return part.total(terms)
