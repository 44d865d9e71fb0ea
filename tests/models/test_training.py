"""The training settings of models/: ``ppgrad train`` with no further options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from scipy.stats import ttest_ind

import ppgrad
from ppgrad.analysis import History
from ppgrad.cli.training import train_problem
from ppgrad.envs import CartPole, GymnasiumEnv, LinearQuadratic, Pendulum
from ppgrad.testing import SUITE_FAILURE_RATE

Load = Callable[[str], ModuleType]
MODELS = Path(__file__).parents[2] / "models"
FAILURE_RATE = SUITE_FAILURE_RATE / 500
PROGRAMS = ("lqr", "pendulum", "cartpole", "mountain_car", "ball_with_wall", "gymnasium_policy")


def train(
    name: str, out: Path, settings: tuple[str, ...] = (), **given: Any
) -> tuple[History, dict[str, torch.Tensor]]:
    history, files = train_problem(str(MODELS / f"{name}.py"), list(settings), given, out)
    return history, torch.load(files[0], weights_only=True)["content"]["parameters"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_settings_are_read_and_the_command_line_wins(name: str, load: Load, tmp_path: Path) -> None:
    own = load(name).problem().training
    assert own["steps"] > 1
    short = ("horizon=3",) if name not in ("ball_with_wall",) else ()
    history, _ = train(name, tmp_path / "out", short, steps=1)
    assert history.steps == 1
    assert history.final["train/learning_rate"] == own["learning_rate"]
    assert f"num_particles={own['num_particles']}" in history.objective or own["num_particles"] == 1
    other, _ = train(name, tmp_path / "other", short, steps=1, learning_rate=0.125)
    assert other.final["train/learning_rate"] == 0.125


@pytest.mark.proof
def test_lqr_reaches_its_best(tmp_path: Path) -> None:
    _, weights = train("lqr", tmp_path / "out")
    assert LinearQuadratic().expected_return(weights["policy.gain"], 0.1, 20) >= -18.30


@pytest.mark.proof
@pytest.mark.parametrize("settings", [("simulator=torch",), ("simulator=gymnasium",)], ids="".join)
def test_cartpole_balances(settings: tuple[str, ...], tmp_path: Path) -> None:
    history, _ = train("cartpole", tmp_path / "out", settings)
    assert history.metrics["rollout/ep_rew_mean"].tail(5).mean() > 180
    assert (history.metrics["rollout/ep_len_mean"] == history.metrics["rollout/ep_rew_mean"]).all()


def test_the_ball_clears_the_wall(tmp_path: Path) -> None:
    history, weights = train("ball_with_wall", tmp_path / "out")
    assert weights["policy.mean"] > 0.898
    assert history.metrics["rollout/ep_rew_mean"].tail(30).mean() > 9.3


@pytest.mark.proof
def test_the_car_reaches_the_goal_more_often(tmp_path: Path) -> None:
    history, _ = train("mountain_car", tmp_path / "out")
    returns = history.metrics["rollout/ep_rew_mean"]
    assert returns.tail(20).mean() > 40 > returns.head(10).mean()


@pytest.mark.proof
def test_the_pendulum_learns(load: Load) -> None:
    """A part of the settings' steps: pathwise brings the return of 50 steps up, beyond what chance could."""
    module = load("pendulum")
    policy = module.swinging_policy()
    settings = dict(module.problem().training)
    del settings["estimator"], settings["num_particles"]
    program = ppgrad.rollout(Pendulum(), policy, 50, episodes=200)

    def returns() -> torch.Tensor:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(1)
            return program().returns

    before = returns()
    training = ppgrad.rollout(Pendulum(), policy, 50, episodes=16)
    ppgrad.fit(ppgrad.ExpectedReturn(ppgrad.Pathwise()), training, **{**settings, "progress": False})
    assert ttest_ind(returns(), before, equal_var=False, alternative="greater").pvalue < FAILURE_RATE


# One learning curve, whoever simulates.

RUNS, STEPS = 16, 10
POINTS = (0, 3, 6, 9)


def curves(load: Load, env: CartPole | None) -> np.ndarray:
    """Mean returns, runs × steps; ``env`` instead of Gymnasium's."""
    module = load("cartpole")
    found = []
    for seed in range(RUNS):
        pyro.clear_param_store()
        # The runs of the two sides are independent: other seeds for the one than for the other.
        policy = module.balancing_policy(seed=seed + (RUNS if env else 0))
        program = ppgrad.rollout(env or GymnasiumEnv("CartPole-v1"), policy, 60, episodes=8)
        objective = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(ppgrad.LeaveOneOut(over="episodes")))
        options = {
            "learning_rate": module.problem().training["learning_rate"],
            "seed": seed + (1000 if env else 0),
        }
        history = ppgrad.fit(objective, program, steps=STEPS, progress=False, **options)
        found.append(history.metrics["rollout/ep_rew_mean"].to_numpy())
    return np.array(found)


def p_values(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return ttest_ind(one, other, equal_var=False).pvalue[list(POINTS)]


class Weak(CartPole):
    """A planted mistake: pushed with a quarter of the force."""

    def transition(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return super().transition(state, 0.5 + 0.25 * (action.to(state.dtype) - 0.5))


@pytest.mark.proof
def test_both_cartpoles_give_one_learning_curve(load: Load) -> None:
    """Welch's t at several points of the training, and a planted mistake that it finds."""
    theirs = curves(load, None)
    ours = curves(load, CartPole())
    assert ours[:, -1].mean() > 1.5 * ours[:, 0].mean(), "nothing was learned, so nothing was compared"
    assert (p_values(ours, theirs) > FAILURE_RATE / len(POINTS)).all()
    assert (p_values(curves(load, Weak()), theirs) < FAILURE_RATE / len(POINTS)).any()
