"""Evolution strategies: the gradient of the expectation, smoothed over Gaussian parameters."""

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
class EvolutionStrategies(Estimator):
    """(f(x(θ + s ε)) − f(x(θ − s ε))) ε / 2s with ε ~ N(0, I), x(θ) drawn with one noise.

    The exact gradient of E_ε E f(x(θ + s ε)), by antithetic pairs. θ are all the parameters of the
    site on the real line, as for `FiniteDifference`.

    Args:
        scale: s, above 0.
        pairs: how many directions are averaged, 1 or more; two branches each.

    Needs a distribution that can be rebuilt from its named parameters; nothing of f.

    Raises:
        InvalidInput: the scale is not above 0, or there are no pairs.

    Source: Salimans et al. (2017), Evolution strategies as a scalable alternative to reinforcement
    learning, section 2; Nesterov & Spokoiny (2017).
    """

    facts: ClassVar[Facts] = Facts(
        source="Salimans et al. (2017), Evolution Strategies, section 2", biased=True, order="O(scale²)"
    )
    needs: ClassVar[Needs] = Needs(alternatives=True)

    scale: float = 0.05
    pairs: int = 1

    def __post_init__(self) -> None:
        positive("EvolutionStrategies", "scale", self.scale, 0.05)
        at_least("EvolutionStrategies", "pairs", self.pairs, 1)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(pairs=2))

    def refuses(self, site: SiteInfo) -> str | None:
        return not_rebuildable(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        like = unconstrained(fn).detach()
        zeros = torch.zeros(self.pairs, *like.shape, dtype=like.dtype, device=like.device)
        return antithetic_steps(fn, torch.normal(zeros, 1.0), self.scale, self.pairs)

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return contrast(draw, signal)
