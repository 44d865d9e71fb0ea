"""Which estimators may serve the sites of a program that is data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import pyro.distributions as dist
import torch

import ppgrad
from ppgrad.core import Estimator, SiteInfo
from ppgrad.estimators import ScoreFunction
from ppgrad.objectives.joint import JointObjective
from ppgrad.testing.conformance import estimator_examples
from ppgrad.testing.programs.data import Draw, Fn
from ppgrad.testing.programs.expectations import Goal
from ppgrad.testing.programs.printing import fn_text
from ppgrad.testing.programs.shapes import KINDS

_SCORES_ALONE = ("GroupRelative", "VarGrad", "ReweightedWakeSleep")


@cache
def serving(family: str, objective: str, particles: int) -> tuple[Estimator, ...]:
    """The examples of unbiased estimators that serve a site of a family under an objective."""
    if objective in _SCORES_ALONE:
        return (ScoreFunction(),)
    info = _site(family, objective, particles)
    return tuple(e for e in estimator_examples() if not e.account.biased and e.refusal(info) is None)


def families(estimator: Estimator) -> tuple[str, ...]:
    """The families that an estimator serves under some objective; all of them where there is none."""
    infos = {family: [_site(family, name, 2) for name in ("ExpectedReturn", "ELBO")] for family in KINDS}
    served = [family for family, sites in infos.items() if any(estimator.refusal(site) is None for site in sites)]
    return tuple(served or KINDS)


def goal_under(goal: Goal, estimators: Iterable[Estimator]) -> Goal:
    """The objective as it is where these estimators serve.

    A bound by weights has one joint weight, and not one for each slice, where an estimator relaxes or differentiates
    the cost of another run; see `ImportanceBound`.
    """
    joint = any(estimator.needs.relaxed or estimator.needs.slopes for estimator in estimators)
    return replace(goal, by_slice=False) if joint and goal.by_slice else goal


def glob_of(step: Draw) -> str:
    """The glob that matches a site in all rounds of a loop."""
    return re.sub(r"\{.*?\}", "*", step.site)


def _site(family: str, name: str, particles: int) -> SiteInfo:
    objective = getattr(ppgrad, name)
    fn = eval(fn_text(Fn(family, KINDS[family].prior)), {"dist": dist, "torch": torch})
    runs = 2 if issubclass(objective, JointObjective) else 1
    return SiteInfo("x", fn, frozenset(), particles, False, runs, None, objective.weighs_guide)
