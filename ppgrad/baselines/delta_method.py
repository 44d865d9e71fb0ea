"""The expected cost to second order, from the program near the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppgrad.core import Baseline, Draw, Memory, RunsAgain, Signal, SiteInfo
from ppgrad.core.distributions import distribution_name, element, without_mask


@dataclass(frozen=True)
class DeltaMethod(Baseline, RunsAgain):
    """b = ½ [f(m + Lr) + f(m − Lr)], r random signs: f(m) + ½ tr(f″(m) Σ) in expectation, to third order.

    m is the mean, LLᵀ = Σ the covariance. Two branches, with the same noise elsewhere. It is the mean
    of f under a normal x where f is cubic at most.

    Needs a distribution on the real numbers with a finite variance.

    Source: Oehlert (1992), A note on the delta method, eq. 1; as a control variate Ranganath, Gerrish &
    Blei (2014), Black box variational inference, section 3.2.
    """

    source: ClassVar[str] = "Oehlert (1992), A Note on the Delta Method, eq. 1"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        fn = without_mask(site.fn)
        try:
            on_reals = _is_real(fn.support)
            usable = on_reals and bool(torch.isfinite(fn.variance).all() and torch.isfinite(fn.mean).all())
        except NotImplementedError:
            usable = False
        if usable:
            return None
        return f"DeltaMethod() needs a variance and all real values, and {distribution_name(site.fn)} lacks them"

    def references(self, fn: TorchDistribution) -> Tensor:
        fn = without_mask(fn)
        signs = 2 * torch.randint(2, fn.shape(), device=fn.mean.device).to(fn.mean.dtype) - 1
        root = getattr(element(fn), "scale_tril", None)
        away = fn.variance.sqrt() * signs if root is None else (root @ signs.unsqueeze(-1)).squeeze(-1)
        return torch.stack([fn.mean + away, fn.mean - away]).detach()

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return signal.alternatives.mean(0)


def _is_real(support: constraints.Constraint) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real or support is constraints.real_vector
