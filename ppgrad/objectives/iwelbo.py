"""The importance-weighted bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ppgrad.core import Estimator, InvalidInput, InvalidProgram, Signal, Unsupported, sum_lane
from ppgrad.engine.execute import Record, Served
from ppgrad.engine.record import Program, Site, Sizes
from ppgrad.objectives.objective import Objective, merged


class IWELBO(Objective):
    """L_K = E[log (1/K) Σ_k w_k], w_k = p(x, z_k) / q(z_k), z_k ~ q; K = 1 is the ELBO.

    The signal of every draw of every sample is the whole bound, since w_k acts on all of it; the
    direct term is Σ_k w̃_k ∇log w_k with w̃ the normalised weights. Right for discrete, continuous
    and mixed guides (Pyro's ``RenyiELBO`` gives discrete guide sites a gradient of zero).

    Args:
        estimator: serves every site that nothing else chooses for. ``ScoreFunction(VIMCO())`` is
            made for this bound; ``ScoreFunction(LeaveOneOut())`` compares particles, each of K samples.
        num_importance: K.
        options: see `Objective`; ``num_particles`` bounds are averaged, K samples each.

    Source: Burda, Grosse & Salakhutdinov (2016), Importance weighted autoencoders, eq. 8;
    Mnih & Rezende (2016), Variational inference for Monte Carlo objectives, eq. 6.
    """

    couples_lanes: ClassVar[bool] = True

    def __init__(self, estimator: Estimator | None = None, *, num_importance: int = 8, **options: Any):
        if isinstance(num_importance, bool) or not isinstance(num_importance, int) or num_importance < 1:
            raise InvalidInput(f"IWELBO(num_importance={num_importance!r}): num_importance is an integer from 1 up.")
        self.num_importance = num_importance
        super().__init__(estimator, **options)

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.num_particles, self.num_importance)

    def check(self, program: Program) -> None:
        if program.guide is None:
            raise InvalidProgram("IWELBO needs a guide. Pass model and guide, or use ExpectedReturn for one program.")

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        return [site.log_prob if site.in_guide and site.kind != "reward" else -site.log_prob for site in sites]

    def combine(self, records: Sequence[Record]) -> tuple[Tensor, Tensor, tuple[Served, ...]]:
        for record in records:
            _check_nothing_is_summed_over(record)
        costs = torch.cat([_lane_costs(record) for record in records])
        log_weights = -costs.reshape(self.num_particles, self.num_importance)
        bounds = log_weights.logsumexp(1) - math.log(self.num_importance)
        loss = -bounds.mean()
        if not torch.is_grad_enabled():
            return loss, loss, ()
        group = _Group(log_weights.detach())
        served, start = [], 0
        for record in records:
            lanes = slice(start, start := start + len(_lane_costs(record)))
            served += [
                (draw, group.signal(draw.log_prob.dim(), signal, lanes), e) for draw, signal, e in record.served()
            ]
        return loss, loss, merged(served)


class _Group:
    """The costs that K samples share.

    Args:
        log_weights: shape ``(particles, K)``.
    """

    def __init__(self, log_weights: Tensor):
        self._log_weights = log_weights
        self._size = log_weights.shape[1]
        shared = self._cost(log_weights.logsumexp(1, keepdim=True))
        particles = len(log_weights)
        self._shared = shared.expand_as(log_weights).reshape(-1)
        others = (shared.sum() - shared) / (particles - 1) if particles > 1 else torch.zeros_like(shared)
        self._others = others.expand_as(log_weights).reshape(-1)
        self._rest = self._log_sum_of_others()
        self._without = self._expected_without()

    def signal(self, dim: int, additive: Signal, lanes: slice) -> Signal:
        """The signal of a draw whose log-probability has ``dim`` dimensions."""

        def shaped(values: Tensor) -> Tensor:
            return values[lanes].reshape(-1, *[1] * (dim - 1))

        alternatives = relaxed = base = None
        if additive.has_alternatives:
            base = shaped(self._shared)
            alternatives = self._replaced(additive.alternatives - additive.base, lanes)
            if additive.has_relaxed:
                change = additive.relaxed - additive.base.reshape(additive.relaxed.shape[1:])
                relaxed = self._replaced(change, lanes)
        without = None if self._without is None else shaped(self._without)
        return Signal(
            {frozenset(): shaped(self._shared)}, frozenset(), alternatives, base, relaxed, shaped(self._others), without
        )

    def _cost(self, log_sum: Tensor) -> Tensor:
        return math.log(self._size) - log_sum

    def _log_sum_of_others(self) -> Tensor:
        """log Σ_{j≠k} w_j, shape ``(particles × K,)``."""
        masked = self._log_weights.unsqueeze(1).masked_fill(torch.eye(self._size, dtype=torch.bool), -math.inf)
        return masked.logsumexp(2).reshape(-1)

    def _expected_without(self) -> Tensor | None:
        """VIMCO's stand-in for a sample: the geometric mean of the others."""
        if self._size < 2:
            return None
        weights = self._log_weights
        mean = (weights.sum(1, keepdim=True) - weights) / (self._size - 1)
        return self._cost(torch.logaddexp(self._rest, mean.reshape(-1)))

    def _replaced(self, change: Tensor, lanes: slice) -> Tensor:
        """The shared cost if the cost of one sample changed by ``change``, shape ``(n, lanes, …)``."""
        ones = [1] * (change.dim() - 2)
        own = self._log_weights.reshape(-1)[lanes].reshape(-1, *ones)
        return self._cost(torch.logaddexp(self._rest[lanes].reshape(-1, *ones), own - change))


def _lane_costs(record: Record) -> Tensor:
    """The whole cost of each lane, shape ``(lanes,)``."""
    return torch.stack([sum_lane(cost) for cost in record.costs]).sum(0).reshape(-1)


def _check_nothing_is_summed_over(record: Record) -> None:
    for entry in record.entries:
        if entry.is_random and entry.estimator is not None and entry.is_summed_over:
            raise Unsupported(
                f"{type(entry.estimator).__name__} cannot serve site '{entry.name}' under IWELBO, which is no sum over "
                f"the values of a site.\\nChoose ScoreFunction(VIMCO()) for it: sites={{'{entry.name}': …}}."
            )
