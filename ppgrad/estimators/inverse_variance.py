"""The mixture of score function and pathwise gradient of least variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from scipy.special import stdtr
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Pilot, Sample, Signal, SiteInfo
from ppgrad.estimators.interpolated import Interpolated
from ppgrad.estimators.pathwise import Pathwise
from ppgrad.estimators.score_function import ScoreFunction

SIGNIFICANCE = 1e-3


@dataclass(frozen=True)
class InverseVariance(Estimator):
    """`Interpolated` with α = (V_score − C) / (V_score + V_path − 2C), from held-out runs, for each site.

    V_score and V_path are the variances of the site's two contributions to the gradient, C their
    covariance (without it, α = V_score / (V_score + V_path)). They come from runs of their own, so
    that α does not depend on the draws that it weighs, and are kept from one gradient to the next;
    training renews them.

    The jump test: where the two contributions differ in mean (a t test on the held-out runs), the
    pathwise gradient is biased, and α = 0. Its variance alone would make it trusted: at a step it
    is zero.

    Args:
        score: the score function, with its baseline.
        pathwise: the pathwise estimator.

    Source: Parmas, Rasmussen, Peters & Doya (2018), PIPPS, eq. 9; Suh et al. (2022), Do differentiable
    simulators give better policy gradients?, section 5.
    """

    facts: ClassVar[Facts] = Facts(source="Parmas et al. (2018), PIPPS, eq. 9", reparameterized=True, finds_jumps=True)

    score: ScoreFunction = field(default_factory=ScoreFunction)
    pathwise: Pathwise = field(default_factory=Pathwise)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return Interpolated(0.5, self.score, self.pathwise).refuses(site)

    def tuned(self, memory: Memory) -> Estimator:
        return Interpolated(memory.get("alpha", 0.5), self.score, self.pathwise, memory.get("score_weight"))

    def sample(self, fn: TorchDistribution) -> Sample:
        return self.tuned({}).sample(fn)

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return self.tuned(memory).surrogate(draw, signal, memory)

    @property
    def gates(self) -> Mapping[str, float]:
        return {**self.score.gates, "alpha": 0.0, "score_weight": 1.0}

    def calibrate(self, pilot: Pilot) -> Memory:
        path, score = pilot.effects["alpha"], pilot.effects["score_weight"]
        difference = path - score
        runs = difference.shape[1]
        standard_error = difference.std(1) / runs**0.5
        t = difference.mean(1).abs() / standard_error.clamp(min=torch.finfo(standard_error.dtype).tiny)
        differ = 2 * stdtr(runs - 1, -t.numpy(force=True)) * len(t) < SIGNIFICANCE
        centred = difference - difference.mean(1, keepdim=True)
        variance = centred.square().sum()
        alpha = -(centred * score).sum() / variance if variance > 0 else torch.tensor(1.0)
        alpha = torch.zeros_like(alpha) if differ.any() else alpha.clamp(0, 1)
        return {**self.score.calibrate(pilot), "alpha": alpha}

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return self.score.modules()
