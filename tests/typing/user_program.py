"""A user's program, as two type checkers read it: what is public is typed, and nothing of it is Any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, assert_type

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad
from ppgrad.core.distributions import sampled


@dataclass(frozen=True)
class Clipped(ppgrad.Estimator):
    """A score function whose signal is clipped to ±``bound``."""

    bound: float = 10.0
    facts: ClassVar[ppgrad.Facts] = ppgrad.Facts(source="a user", biased=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(bound=1.0))

    def refuses(self, site: ppgrad.SiteInfo) -> str | None:
        return "its density is not smooth" if "uniform" in type(site.fn).__name__.lower() else None

    def sample(self, fn: dist.TorchDistribution) -> ppgrad.Sample:
        return ppgrad.Sample(sampled(fn))

    def surrogate(self, draw: ppgrad.Draw, signal: ppgrad.Signal, memory: Mapping[str, Tensor]) -> Tensor:
        return draw.log_prob * signal.value.clamp(-self.bound, self.bound)


def program(policy: ppgrad.GaussianPolicy, episodes: int = 16) -> None:
    with pyro.plate("episodes", episodes):
        state = torch.ones(episodes, 2)
        action = ppgrad.policy("action", policy(state), context=state)
        ppgrad.reward("reward", -(action - 1).square().sum(-1))


def main() -> ppgrad.Measurement:
    policy = ppgrad.GaussianPolicy(2, 1)
    baseline = ppgrad.LeaveOneOut(over="episodes")
    own = ppgrad.ExpectedReturn(Clipped(), num_particles=2)
    score = ppgrad.ExpectedReturn(sites={"action": ppgrad.ScoreFunction(baseline=baseline)})
    gradient = ppgrad.gradient(own, program, args=(policy,), seed=0)
    assert_type(gradient, dict[str, Tensor])
    measured = ppgrad.measure(score, program, args=(policy,), replicates=20, seed=0)
    assert_type(measured, ppgrad.Measurement)
    compared = ppgrad.compare({"own": own, "score": score}, program, args=(policy,), replicates=20)
    assert_type(compared, ppgrad.Comparison)
    assert_type(ppgrad.all_estimators(), tuple[type[ppgrad.Estimator], ...])
    return measured
