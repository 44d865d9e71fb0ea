"""What an estimator says that it needs and does is what the engine asks it for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Self

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import ppgrad
from ppgrad.baselines import all_baselines
from ppgrad.core import (
    Calibrates,
    Draw,
    Estimator,
    Facts,
    InvalidAssignment,
    InvalidInput,
    Learns,
    Memory,
    Needs,
    Remembers,
    RunsAgain,
    Sample,
    SharesNoise,
    Signal,
    SiteInfo,
    SumsOver,
    Tunes,
)
from ppgrad.core.distributions import sampled
from ppgrad.testing import estimator_examples

DOING = (Learns, Remembers, Calibrates, Tunes, SumsOver, SharesNoise, RunsAgain)


@dataclass(frozen=True)
class Undeclared(Estimator):
    """Hands out an alternative without a word in its needs."""

    facts: ClassVar[Facts] = Facts(source="none")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return None

    def sample(self, fn: dist.TorchDistribution) -> Sample:
        value = sampled(fn)
        return Sample(value, {}, 1 - value.unsqueeze(0))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return draw.log_prob * (signal.value - signal.alternatives[0])


def program() -> None:
    p = torch.tensor(0.3, requires_grad=True)
    ppgrad.cost("c", ppgrad.policy("a", dist.Bernoulli(p)).square())


def test_alternatives_that_are_not_in_the_needs_are_named() -> None:
    with pytest.raises(InvalidAssignment, match=r"Undeclared .* site 'a'.*\n?.*Needs\(alternatives=True\)"):
        ppgrad.gradient(ppgrad.ExpectedReturn(Undeclared()), program)


@pytest.mark.parametrize("name", ["element_by_element", "relaxed", "slopes"])
def test_needs_of_alternatives_name_them(name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"Write Needs\(alternatives=True, {name}=True\)"):
        Needs(**{name: True})
    assert getattr(Needs(alternatives=True, **{name: True}), name)


@pytest.mark.parametrize("estimator", estimator_examples(), ids=repr)
def test_needs_are_made_once(estimator: Estimator) -> None:
    assert isinstance(estimator.needs, Needs)
    assert estimator.needs is estimator.needs


def test_every_need_is_somebodys() -> None:
    members = [*estimator_examples(), *[example for baseline in all_baselines() for example in baseline.examples()]]
    for need in fields(Needs):
        assert any(getattr(member.needs, need.name) for member in members), need.name
    for doing in DOING:
        assert any(isinstance(member, doing) for member in members), doing.__name__


def test_what_a_baseline_needs_its_score_function_needs() -> None:
    score = ppgrad.ScoreFunction
    assert score(ppgrad.SelfCritical()).needs == Needs(alternatives=True)
    assert score(ppgrad.LeaveOneOut()).needs == Needs(joins_steps=True, independent_particles=True)
    assert score(ppgrad.GeneralizedAdvantage(ppgrad.Critic(torch.nn.Linear(1, 1)))).needs == Needs(chain=True)
    assert ppgrad.Interpolated(score=score(ppgrad.DeltaMethod())).needs == Needs(alternatives=True)
    assert ppgrad.InverseVariance(score=score(ppgrad.DeltaMethod())).needs == Needs(alternatives=True)


@pytest.mark.parametrize("doing", DOING, ids=lambda doing: doing.__name__)
def test_what_it_says_that_it_does_it_has_to_do(doing: type) -> None:
    class Says(Undeclared, doing):  # type: ignore[misc, valid-type]
        pass

    with pytest.raises(TypeError, match="abstract"):
        Says()
