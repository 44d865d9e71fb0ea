"""A policy of two parameters, 20 steps, 64 episodes: score function with the reward to go."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.programs.rollout import rollout_race
from benchmarks.rollouts import SCALAR
from benchmarks.timing import Race


def races(quick: bool) -> Iterator[Race]:
    yield rollout_race("scalar policy", SCALAR, "score", steps=20)
