"""The programs of models/ that play environments: what their first lines say is so."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

import ppgrad
from ppgrad import ExpectedReturn, InvalidInput, LeaveOneOut, Pathwise, ScoreFunction
from ppgrad.testing import SUITE_FAILURE_RATE

Load = Callable[[str], ModuleType]
FAILURE_RATE = SUITE_FAILURE_RATE / 500
SCORE = ScoreFunction(LeaveOneOut(over="episodes"))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pendulum", {"horizon": 5}),
        ("cartpole", {"horizon": 15}),
        ("cartpole", {"horizon": 15, "simulator": "gymnasium"}),
        ("mountain_car", {"horizon": 10}),
        ("gymnasium_policy", {"horizon": 15}),
        ("gymnasium_policy", {"id": "Pendulum-v1", "horizon": 5}),
        ("gymnasium_policy", {"id": "Acrobot-v1", "horizon": 5}),
        ("gymnasium_policy", {"id": "MountainCarContinuous-v0", "horizon": 5}),
    ],
)
def test_problems_are_measured(load: Load, name: str, settings: dict[str, Any]) -> None:
    problem = load(name).problem(**settings)
    state = torch.get_rng_state()
    again = load(name).problem(**settings)
    assert torch.equal(torch.get_rng_state(), state), f"{name} draws from the global generator"
    first, second = (
        ppgrad.gradient(problem.objective(SCORE), one.model, args=one.args, seed=0) for one in (problem, again)
    )
    assert all(torch.equal(first[parameter], second[parameter]) for parameter in first)
    assert all(parameter.startswith("policy.") for parameter in first)
    found = ppgrad.measure(problem.objective(ScoreFunction()), problem.model, args=problem.args, replicates=10)
    assert any((variance > 0).any() for variance in found.variance.values())


def test_pathwise_throws_lower_and_the_truth_is_higher(load: Load) -> None:
    problem = load("ball_with_wall").problem()
    exact = problem.exact()
    found = ppgrad.measure(ExpectedReturn(Pathwise()), problem.model, replicates=2000, reference=exact)
    assert exact["policy.mean"] > 0 > found.mean["policy.mean"]
    assert (found.p_value["policy.mean"] < FAILURE_RATE).all()
    score = ppgrad.measure(ExpectedReturn(ScoreFunction()), problem.model, replicates=2000, reference=exact)
    assert (score.variance["policy.mean"] > found.variance["policy.mean"]).all()


def test_value_baselines_of_the_lqr(load: Load) -> None:
    module = load("lqr")
    problem = module.problem(gain=module.BEST_GAIN)
    policy = next(cell.cell_contents for cell in problem.model.__closure__ if hasattr(cell.cell_contents, "gain"))
    variances = [
        float(ppgrad.measure(objective, problem.model, replicates=2000).variance["policy.gain"].sum())
        for objective in (ExpectedReturn(ScoreFunction()), ExpectedReturn(sites=module.value_baselines(policy, 20)))
    ]
    assert variances[0] > 1e5 * variances[1]


def test_pathwise_misses_the_goal_of_the_mountain_car(load: Load) -> None:
    problem = load("mountain_car").problem(weight=2.0, horizon=200, episodes=16)
    assert problem.model().terminated.any()
    score, path = (
        ppgrad.measure(problem.objective(estimator), problem.model, replicates=40) for estimator in (SCORE, Pathwise())
    )
    assert (score.variance["policy.weight"] > 100 * path.variance["policy.weight"]).all()
    assert (path.mean["policy.weight"] < 0).all()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("cartpole", {"simulator": "mujoco"}, ["simulator='mujoco'", "'torch'"]),
        ("cartpole", {"horizon": 0}, ["horizon=0"]),
        ("gymnasium_policy", {"id": "Nothing-v0"}, ["'Nothing-v0'"]),
    ],
)
def test_wrong_arguments_are_named(load: Load, name: str, settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(name).problem(**settings)
    assert all(word in str(caught.value) for word in words)
