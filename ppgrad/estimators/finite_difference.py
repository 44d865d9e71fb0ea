"""Finite differences with common random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.arguments import positive
from ppgrad.core.parameters import not_rebuildable, unconstrained
from ppgrad.estimators.discrete.contrast import contrast
from ppgrad.estimators.discrete.perturbation import antithetic_steps


@dataclass(frozen=True)
class FiniteDifference(Estimator):
    """(f(x(θ_i + h)) − f(x(θ_i − h))) / 2h for each scalar parameter θ_i, x(θ) drawn with one noise.

    θ are the parameters of the site's distribution on the real line: logits, the logarithm of a
    scale, the Cholesky factor of a covariance with the logarithm of its diagonal. Two branches for
    each number that an element has as a parameter, constants included; elements that a later cost
    couples take turns, elements of a plate share.

    Biased by h²/6 times the third derivative of the expectation; the variance is O(1/h) where f
    jumps or the site is discrete.

    Args:
        step: h, above 0.

    Needs a distribution that can be rebuilt from its named parameters; nothing of f.

    Raises:
        InvalidInput: the step is not above 0.

    Source: Glasserman (2003), Monte Carlo methods in financial engineering, section 7.1.
    """

    facts: ClassVar[Facts] = Facts(
        source="Glasserman (2003), Monte Carlo Methods in Financial Engineering, section 7.1",
        biased=True,
        order="O(step²)",
    )
    needs: ClassVar[Needs] = Needs(alternatives=True, element_by_element=True)

    step: float = 0.05

    def __post_init__(self) -> None:
        positive("FiniteDifference", "step", self.step, 0.05)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return not_rebuildable(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        numbers = unconstrained(fn).detach()
        axes = torch.eye(numbers.shape[-1], dtype=numbers.dtype, device=numbers.device)
        axes = axes.reshape(len(axes), *[1] * (numbers.dim() - 1), -1).expand(-1, *numbers.shape)
        return antithetic_steps(fn, axes, self.step, 1)

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return contrast(draw, signal)
