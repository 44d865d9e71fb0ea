"""Score-function gradient, also known as REINFORCE, the likelihood ratio, the log-derivative trick."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import (
    Baseline,
    Calibrates,
    Draw,
    Draws,
    Estimator,
    Facts,
    InvalidAssignment,
    Learns,
    Memory,
    Needs,
    Pilot,
    Remembers,
    RunsAgain,
    Sample,
    SharesNoise,
    Signal,
    SiteInfo,
)
from ppgrad.core.distributions import distribution_name, is_rounded, sampled, undifferentiable_density
from ppgrad.core.edges import cut_off
from ppgrad.core.particle_noise import Antithetic, QuasiMonteCarlo, check_draws, not_drawable, quantile
from ppgrad.core.supports import moving_bound


@dataclass(frozen=True)
class ScoreFunction(Estimator, SharesNoise, Learns, Remembers, Calibrates):
    """∇ E[f(x)] = E[(f(x) − b) ∇ log p(x)] + E[∇ f], x held fixed.

    The value is drawn without a graph, so that a transform's cached inverse cannot hide the
    gradient of its density. Any distribution with a density serves; a baseline b that does not
    depend on the draw lowers the variance and leaves the mean.

    Args:
        baseline: what is subtracted from the signal, such as ``LeaveOneOut()``; None for nothing
            (or, where the site has Pyro's ``infer={"baseline": …}``, for that).
        draws: how particles share noise, ``Antithetic()`` or ``QuasiMonteCarlo()``; None for
            independent ones.

    Refuses a support that moves with a parameter (the score misses the boundary's term: for
    U(0, θ) it even has the wrong sign), a density that cannot be evaluated at a given value, and draws that are
    cut off at the edge of the support (those of Beta(0.02, 0.02)), where the score is that of another value.

    Raises:
        InvalidAssignment: ``baseline`` is no baseline's instance, or ``draws`` none of the two.

    Source: Williams (1992), Simple statistical gradient-following algorithms, eq. 4.
    """

    facts: ClassVar[Facts] = Facts(source="Williams (1992), Simple statistical gradient-following algorithms, eq. 4")

    baseline: Baseline | None = None
    draws: Draws | None = None

    def __post_init__(self) -> None:
        if self.baseline is not None and not isinstance(self.baseline, Baseline):
            raise InvalidAssignment(
                f"ScoreFunction(baseline={self.baseline!r}): write a baseline's instance, such as LeaveOneOut() or "
                "Constant(1.0)."
            )
        check_draws(type(self).__name__, self.draws)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(draws=Antithetic()), cls(draws=QuasiMonteCarlo()))

    @cached_property
    def needs(self) -> Needs:  # type: ignore[override]
        plain = type(self) is ScoreFunction  # one that overrides `surrogate` may read more
        if self.baseline is None:
            return Needs(joins_steps=plain)
        wanted = self.baseline.needs
        again = isinstance(self.baseline, RunsAgain)
        return replace(wanted, alternatives=again, joins_steps=plain and wanted.joins_steps)

    @property
    def chained_by(self) -> Hashable:
        return self.baseline

    @property
    def account(self) -> Facts:
        bias = "" if self.baseline is None else self.baseline.bias
        return replace(self.facts, biased=True, order=bias) if bias else self.facts

    def refuses(self, site: SiteInfo) -> str | None:
        name = distribution_name(site.fn)
        if moving_bound(site.fn):
            return f"the support of {name} moves with a parameter, and the score misses the boundary's term"
        if is_rounded(site.fn):
            return f"the density of {name} is that of the value before it was rounded"
        try:
            with torch.no_grad():
                site.fn.log_prob(site.fn.sample().detach())
        except (NotImplementedError, KeyError):
            return f"the density of {name} cannot be evaluated at a given value"
        reason = undifferentiable_density(site.fn) or cut_off(site.fn)
        if reason is None and self.baseline is not None:
            reason = self.baseline.refuses(site)
        if reason is not None or self.draws is None:
            return reason
        if self.baseline is not None and self.baseline.needs.independent_particles:
            return f"{type(self.baseline).__name__} needs independent particles, and {self.draws!r} relates them"
        return not_drawable(self.draws, site)

    def sample(self, fn: TorchDistribution) -> Sample:
        return self._with_references(fn, sampled(fn))

    def sample_from(self, fn: TorchDistribution, uniform: Tensor) -> Sample:
        with torch.no_grad():
            return self._with_references(fn, quantile(fn, uniform))

    def _with_references(self, fn: TorchDistribution, value: Tensor) -> Sample:
        return Sample(value, {}, self.references(fn))

    def references(self, fn: TorchDistribution) -> Tensor | None:
        """Where its baseline runs the program again, or None."""
        return self.baseline.references(fn) if isinstance(self.baseline, RunsAgain) else None

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        advantage = signal.value
        if self.baseline is not None:
            advantage = advantage - self.baseline.predict(draw, signal, memory)
        return draw.log_prob * advantage

    @property
    def gates(self) -> Mapping[str, float]:
        return self.baseline.gates if isinstance(self.baseline, Calibrates) else {}

    def calibrate(self, pilot: Pilot) -> Memory:
        return self.baseline.calibrate(pilot) if isinstance(self.baseline, Calibrates) else {}

    def update(self, draw: Draw, signal: Signal, memory: Memory) -> Memory:
        return self.baseline.update(draw, signal, memory) if isinstance(self.baseline, Remembers) else memory

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return self.baseline.own_loss(draw, signal, memory) if isinstance(self.baseline, Learns) else None

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return self.baseline.modules() if isinstance(self.baseline, Learns) else ()
