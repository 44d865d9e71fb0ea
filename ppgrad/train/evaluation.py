"""Fresh runs of a program in training, which teach nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution

from ppgrad.core import Estimator, Facts, Sample, SiteInfo
from ppgrad.core.distributions import distribution_name, mode
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.site import site_info
from ppgrad.estimators import Pathwise, ScoreFunction
from ppgrad.measurement.gradient import pure
from ppgrad.objectives import Estimate, Objective
from ppgrad.train.metrics import episode_rewards
from ppgrad.train.settings import Metrics, Settings


@dataclass(frozen=True)
class _Mode(Estimator):
    """The likeliest action, in place of a draw; it estimates no gradient."""

    facts: ClassVar[Facts] = Facts(source="", biased=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        try:
            mode(site.fn)
        except NotImplementedError:
            return f"{distribution_name(site.fn)} has no mode for a deterministic evaluation"
        return None

    def sample(self, fn: TorchDistribution) -> Sample:
        return Sample(mode(fn))


def evaluation_of(
    objective: Objective, settings: Settings, prepared: Prepared, estimate: Estimate
) -> Evaluation | None:
    """The evaluation that the settings ask for, or None for none.

    Args:
        objective: in training.
        settings: of the training.
        prepared: the program, as it was prepared for its first run.
        estimate: of that run; it tells how many episodes there are in one.
    """
    if settings.evaluate_every is None:
        return None
    particles = prepared.executor.particles
    rewards = episode_rewards(estimate.rewards(particles))
    per_run = (particles if rewards is None else rewards.episodes) // objective.num_particles
    return Evaluation(
        objective, settings.evaluation_episodes, per_run, settings.evaluation_deterministic, settings.evaluate
    )


class Evaluation:
    """Runs a program under a seed of its own, and reports what it earns and its loss.

    Args:
        objective: in training; a copy of it without baselines evaluates.
        episodes: at least how many, or particles for a program without rewards.
        per_run: episodes in one run.
        deterministic: policy sites take their likeliest action.
        extra: further metrics, made under the same seed; they are called ``eval/`` and their name.
    """

    def __init__(
        self,
        objective: Objective,
        episodes: int,
        per_run: int,
        deterministic: bool,
        extra: Callable[[], Metrics] | None,
    ):
        runs = -(-episodes // per_run)
        self._extra = extra

        def choose(message: Mapping[str, Any]) -> Estimator | None:
            """Whatever draws a plain sample, unless the mode is asked for."""
            if deterministic and message["infer"].get("policy"):
                return _Mode()
            info = site_info(message, runs)
            candidates: tuple[Estimator, ...] = (ScoreFunction(), Pathwise())
            return next((candidate for candidate in candidates if candidate.refuses(info) is None), None)

        self._objective = objective.with_choice(choose, runs)

    def __call__(self, program: Program, seed: int) -> dict[str, float]:
        with pure(seed, program), torch.no_grad():
            prepared = self._objective.prepare(program.model, program.guide, program.args, program.kwargs)
            estimate = self._objective.estimate(prepared.executor)
            found = {"eval/loss": float(estimate.loss)}
            rewards = episode_rewards(estimate.rewards(prepared.executor.particles))
            if rewards is not None:
                found["eval/mean_reward"] = rewards.mean
            extra = {} if self._extra is None else self._extra()
        return found | {f"eval/{name}": float(value) for name, value in extra.items()}
