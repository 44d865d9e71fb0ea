"""SPSA: simultaneous perturbation of all parameters of a site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.arguments import at_least, positive
from ppgrad.core.parameters import not_rebuildable, unconstrained
from ppgrad.estimators.discrete.contrast import contrast
from ppgrad.estimators.discrete.perturbation import antithetic_steps


@dataclass(frozen=True)
class SPSA(Estimator):
    """(f(x(θ + h Δ)) − f(x(θ − h Δ))) Δ / 2h with independent signs Δ_i = ±1, x(θ) drawn with one noise.

    θ are all the parameters of the site on the real line, as for `FiniteDifference`, whose branches
    grow with their number where a pair here has two. The other parameters' shares are noise of mean zero.

    Args:
        step: h, above 0.
        pairs: how many directions are averaged, 1 or more; two branches each.

    Needs a distribution that can be rebuilt from its named parameters; nothing of f.

    Raises:
        InvalidInput: the step is not above 0, or there are no pairs.

    Source: Spall (1992), Multivariate stochastic approximation using a simultaneous perturbation
    gradient approximation, eq. 2.2.
    """

    facts: ClassVar[Facts] = Facts(
        source="Spall (1992), Simultaneous Perturbation Gradient Approximation, eq. 2.2", biased=True, order="O(step²)"
    )
    needs: ClassVar[Needs] = Needs(alternatives=True)

    step: float = 0.05
    pairs: int = 1

    def __post_init__(self) -> None:
        positive("SPSA", "step", self.step, 0.05)
        at_least("SPSA", "pairs", self.pairs, 1)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(pairs=2))

    def refuses(self, site: SiteInfo) -> str | None:
        return not_rebuildable(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        like = unconstrained(fn).detach()
        uniform = torch.rand(self.pairs, *like.shape, dtype=like.dtype, device=like.device)
        signs = torch.where(uniform < 0.5, -torch.ones_like(uniform), torch.ones_like(uniform))
        return antithetic_steps(fn, signs, self.step, self.pairs)

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return contrast(draw, signal)
