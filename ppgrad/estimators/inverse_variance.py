"""The mixture of score function and pathwise gradient of least variance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from scipy.special import stdtr
from torch import Tensor

from ppgrad.core import (
    Calibrates,
    Draw,
    Estimator,
    Facts,
    Learns,
    Memory,
    Needs,
    Pilot,
    Remembers,
    Sample,
    Signal,
    SiteInfo,
    Tunes,
)
from ppgrad.estimators.interpolated import Interpolated, check_parts
from ppgrad.estimators.pathwise import Pathwise
from ppgrad.estimators.score_function import ScoreFunction

SIGNIFICANCE = 1e-3


@dataclass(frozen=True)
class InverseVariance(Estimator, Tunes, Learns, Remembers, Calibrates):
    """`Interpolated` with α = (V_score − C) / (V_score + V_path − 2C), from held-out runs, for each site.

    V_score and V_path are the variances of the site's two contributions to the gradient, C their
    covariance (without it, α = V_score / (V_score + V_path)). They come from runs of their own, so
    that α does not depend on the draws that it weighs, and are kept from one gradient to the next;
    training renews them.

    Where the cost jumps as the value moves, the path misses the jump. Its variance alone would make it
    trusted: at a step it is zero. So α = 0 at a site where one of two tests tells of a jump:

    * The program is run again with the value on lines between draws of it, all other draws held. The
      cost differs along a line by the integral of its slope; where it does not, or rises within 1/256
      of the line, it jumps. Nothing is asked of statistics here: a small jump under much noise shows.
    * The two contributions differ in mean on the held-out runs, by t tests at the site and of the sum
      over all sites that this estimator serves, to which small differences at many sites add up.

    Unbiased where the cost has no jump, or one that the tests see. They do not see one that no line
    between 256 draws crosses and that 256 runs cannot tell from noise, nor one in a later value that
    `Pathwise` draws without a test; α times the bias of `Pathwise` is left of it.

    Args:
        score: the score function, with its baseline.
        pathwise: the pathwise estimator.

    Raises:
        InvalidAssignment: ``score`` is no `ScoreFunction`, or ``pathwise`` no `Pathwise`.

    Source: Parmas, Rasmussen, Peters & Doya (2018), PIPPS, eq. 9; Suh et al. (2022), Do differentiable
    simulators give better policy gradients?, section 5.
    """

    facts: ClassVar[Facts] = Facts(
        source="Parmas et al. (2018), PIPPS, eq. 9",
        assumes="its tests see where the cost jumps",
        reparameterized=True,
        finds_jumps=True,
    )

    score: ScoreFunction = field(default_factory=ScoreFunction)
    pathwise: Pathwise = field(default_factory=Pathwise)

    def __post_init__(self) -> None:
        check_parts(type(self).__name__, self.score, self.pathwise)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    @cached_property
    def needs(self) -> Needs:  # type: ignore[override]
        return self.tuned({}).needs

    @property
    def chained_by(self) -> Hashable:
        return self.score.chained_by

    @property
    def account(self) -> Facts:
        score = self.score.account
        return replace(self.facts, biased=score.biased, order=score.order)

    def refuses(self, site: SiteInfo) -> str | None:
        return Interpolated(0.5, self.score, self.pathwise).refuses(site)

    def tuned(self, memory: Memory) -> Estimator:
        return Interpolated(memory.get("alpha", 0.5), self.score, self.pathwise)

    def sample(self, fn: TorchDistribution) -> Sample:
        return self.tuned({}).sample(fn)

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return self.tuned(memory).surrogate(draw, signal, memory)

    @property
    def gates(self) -> Mapping[str, float]:
        return {**self.score.gates, "alpha": 0.0, "score_weight": 1.0}

    def calibrate(self, pilot: Pilot) -> Memory:
        path, score = pilot.effects["alpha"], pilot.effects["score_weight"]
        pooled = [pilot.pooled[gate] for gate in ("alpha", "score_weight") if gate in pilot.pooled]
        difference = path - score
        centred = difference - difference.mean(1, keepdim=True)
        variance = centred.square().sum()
        alpha = torch.where(variance > 0, -(centred * score).sum() / variance, 1.0)
        biased = pilot.jumps or _has_mean(difference) or (len(pooled) == 2 and _has_mean(pooled[0] - pooled[1]))
        return {**self.score.calibrate(pilot), "alpha": torch.zeros_like(alpha) if biased else alpha.clamp(0, 1)}

    def update(self, draw: Draw, signal: Signal, memory: Memory) -> Memory:
        return self.score.update(draw, signal, memory)

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return self.score.own_loss(draw, signal, memory)

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return self.score.modules()


def _has_mean(difference: Tensor) -> bool:
    """Whether the mean over runs is not zero, by a t test for each direction: ``(directions, runs)``."""
    runs = difference.shape[1]
    standard_error = difference.std(1) / runs**0.5
    t = difference.mean(1).abs() / standard_error.clamp(min=torch.finfo(standard_error.dtype).tiny)
    return bool((2 * stdtr(runs - 1, -t.numpy(force=True)) * len(t) < SIGNIFICANCE).any())
