"""A mixture of the score function and the pathwise gradient."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import (
    Calibrates,
    Draw,
    Estimator,
    Facts,
    InvalidAssignment,
    Learns,
    Memory,
    Needs,
    Pilot,
    Remembers,
    Sample,
    Signal,
    SiteInfo,
)
from ppgrad.core.arguments import within
from ppgrad.estimators.pathwise import Pathwise
from ppgrad.estimators.score_function import ScoreFunction


@dataclass(frozen=True)
class Interpolated(Estimator, Learns, Remembers, Calibrates):
    """α · pathwise + (1 − α) · score function, of one draw.

    Unbiased for every α where the pathwise gradient is. One value is drawn; its path passes on α of
    its gradient, and its score is weighted by 1 − α.

    Args:
        alpha: α in [0, 1], a scalar, the share of the pathwise gradient.
        score: the score function, with its baseline.
        pathwise: the pathwise estimator.

    Raises:
        InvalidInput: ``alpha`` is outside of [0, 1].
        InvalidAssignment: ``score`` is no `ScoreFunction`, or ``pathwise`` no `Pathwise`.

    Source: Gu et al. (2017), Interpolated policy gradient, eq. 5; `InverseVariance` chooses α itself.
    """

    facts: ClassVar[Facts] = Facts(
        source="Gu et al. (2017), Interpolated Policy Gradient, eq. 5",
        assumes="the cost does not jump",
        reparameterized=True,
    )

    alpha: float | Tensor = 0.5
    score: ScoreFunction = field(default_factory=ScoreFunction)
    pathwise: Pathwise = field(default_factory=Pathwise)

    def __post_init__(self) -> None:
        if not isinstance(self.alpha, Tensor):
            within(type(self).__name__, "alpha", self.alpha, 0.0, 1.0)
        check_parts(type(self).__name__, self.score, self.pathwise)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(0.2))

    @cached_property
    def needs(self) -> Needs:  # type: ignore[override]
        return replace(self.score.needs, joins_steps=False)  # the weight may be another at each step

    @property
    def chained_by(self) -> Hashable:
        return self.score.chained_by

    @property
    def account(self) -> Facts:
        score = self.score.account
        return replace(self.facts, biased=score.biased, order=score.order)

    def refuses(self, site: SiteInfo) -> str | None:
        if self.pathwise.draws is not None or self.score.draws is not None:
            return f"{type(self).__name__} draws independent particles; leave draws= out"
        return self.pathwise.refuses(site) or self.score.refuses(site)

    def sample(self, fn: TorchDistribution) -> Sample:
        path = fn.rsample()
        fixed = path.detach()
        return Sample(fixed + self.alpha * (path - fixed), {}, self.score.references(fn))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        weight = memory.get("score_weight", 1 - self.alpha)  # the two apart, in the runs that weigh them
        return weight * self.score.surrogate(draw, signal, memory)

    @property
    def gates(self) -> Mapping[str, float]:
        return self.score.gates

    def calibrate(self, pilot: Pilot) -> Memory:
        return self.score.calibrate(pilot)

    def update(self, draw: Draw, signal: Signal, memory: Memory) -> Memory:
        return self.score.update(draw, signal, memory)

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return self.score.own_loss(draw, signal, memory)

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return self.score.modules()


def check_parts(owner: str, score: object, pathwise: object) -> None:
    """Raise unless the two are a score function and a pathwise estimator, in this order."""
    for name, part, kind in (("score", score, ScoreFunction), ("pathwise", pathwise, Pathwise)):
        if not isinstance(part, kind):
            raise InvalidAssignment(
                f"{owner}({name}={part!r}): {name} is an instance of {kind.__name__}. "
                f"Write {owner}({name}={kind.__name__}())."
            )
