"""Fresh runs of a program in training, which teach nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ppgrad.core import Estimator
from ppgrad.engine.record import Program, site_info
from ppgrad.estimators import Pathwise, ScoreFunction
from ppgrad.measurement.gradient import pure
from ppgrad.objectives import Objective
from ppgrad.train.episodes import earned

Metrics = Mapping[str, float]


class Evaluation:
    """Runs a program under a seed of its own, and reports what it earns and its loss.

    Args:
        objective: in training; a copy of it without baselines evaluates.
        episodes: at least how many, or particles for a program without rewards.
        per_run: episodes in one run.
        extra: further metrics, made under the same seed; they are called ``eval/`` and their name.
    """

    def __init__(self, objective: Objective, episodes: int, per_run: int, extra: Callable[[], Metrics] | None):
        runs = -(-episodes // per_run)
        self._extra = extra

        def choose(message: Mapping[str, Any]) -> Estimator | None:
            """Whatever draws a plain sample."""
            info = site_info(message, runs)
            candidates: tuple[Estimator, ...] = (ScoreFunction(), Pathwise())
            return next((candidate for candidate in candidates if candidate.refuses(info) is None), None)

        self._objective = objective.with_choice(choose, runs)

    def __call__(self, program: Program, seed: int) -> dict[str, float]:
        with pure(seed, program), torch.no_grad():
            prepared = self._objective.prepare(program.model, program.guide, program.args, program.kwargs)
            estimate = self._objective.estimate(prepared.executor)
            found = {"eval/loss": float(estimate.loss)}
            rewards = earned(estimate.rewards(prepared.executor.particles))
            if rewards is not None:
                found["eval/mean_reward"] = rewards.mean
            extra = {} if self._extra is None else self._extra()
        return found | {f"eval/{name}": float(value) for name, value in extra.items()}
