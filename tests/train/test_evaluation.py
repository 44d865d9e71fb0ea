"""Rewards and lengths of episodes; evaluations, which teach nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    ELBO,
    Enumerate,
    ExpectedReturn,
    LeaveOneOut,
    Pathwise,
    ScoreFunction,
)
from tests.train.programs import DATA, Policy, episode, fit, guide, model, program


def test_rewards_of_an_episode() -> None:
    """Undiscounted, unscaled, nothing where masked, whatever the estimator; in a loop as under vmap."""

    def steps(data: Tensor) -> None:
        p = pyro.param("p", torch.tensor(0.5))
        mask = torch.tensor([True, True, False, True])
        with pyro.plate("episodes", 4), pyro.poutine.scale(scale=3.0):
            for t in range(3):
                x = ppgrad.policy(f"x_{t}", dist.Bernoulli(p))
                with pyro.plate(f"assets_{t}", 2, dim=-2), pyro.poutine.mask(mask=mask):
                    ppgrad.reward(f"r_{t}", data + 0.0 * x)

    for vectorize in (True, False):
        for estimator in (ScoreFunction(), Enumerate()):
            objective = ExpectedReturn(
                estimator, discount=0.5, num_particles=2, vectorize_particles=vectorize, max_branches=10**6
            )
            fn = steps if estimator == ScoreFunction() else _one_bernoulli
            history = fit(objective, fn, args=(torch.tensor([1.0, 2.0, 100.0, 6.0]),), steps=2, learning_rate=0.0)
            expected = 3 * 2 * (1 + 2 + 6) / 4 if estimator == ScoreFunction() else 0.25
            assert history.final["rollout/ep_rew_mean"] == pytest.approx(expected)
            timesteps = 2 * 2 * 3 * 2 * 4 if estimator == ScoreFunction() else 2 * 2 * 2
            assert history.final["time/total_timesteps"] == timesteps
            pyro.clear_param_store()


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("estimator", [ScoreFunction(), Pathwise()], ids=["score", "pathwise"])
def test_episode_lengths(num_particles: int, estimator: Any) -> None:
    """An episode is as long as its draws are active; steps after its end are no timesteps."""

    def episodes() -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        lengths = torch.tensor([1, 3, 2, 2])
        with pyro.plate("episodes", 4):
            for t in range(3):
                active = lengths > t
                x = ppgrad.policy(f"x_{t}", dist.Normal(loc, 1.0).expand([4]), infer={"active": active})
                ppgrad.reward(f"r_{t}", x * active)

    history = fit(ExpectedReturn(estimator, num_particles=num_particles), episodes, steps=2)
    assert history.final["rollout/ep_len_mean"] == 2.0
    assert history.final["time/total_timesteps"] == 2 * num_particles * 8
    pyro.clear_param_store()
    assert "rollout/ep_len_mean" not in fit(ExpectedReturn(), program, steps=1).metrics


def _one_bernoulli(data: Tensor) -> None:
    p = pyro.param("q", torch.tensor(0.25))
    x = ppgrad.policy("x", dist.Bernoulli(p))
    ppgrad.reward("r", x)


def test_a_bound_has_no_rewards_and_no_fps() -> None:
    history = fit(ELBO(), model, guide, (DATA,), steps=2, evaluate_every=1, evaluation_episodes=7)
    assert list(history.metrics.columns) == [
        "train/loss", "train/learning_rate", "grad/norm", "grad/variance", "grad/snr", "train/n_updates",
        "time/iterations", "eval/loss", "time/time_elapsed",
    ]  # fmt: skip


def test_evaluation_leaves_training_alone() -> None:
    ends = []
    for options in ({}, {"evaluate_every": 3, "evaluation_episodes": 10}, {"evaluate_every": 2}):
        policy = Policy()
        objective = ExpectedReturn(ScoreFunction(LeaveOneOut("n")))
        history = fit(
            objective, episode, args=(policy,), steps=12, learning_rate=0.05,
            evaluate=(lambda: {"spread": float(torch.randn(()))}) if options else None, **options,
        )  # fmt: skip
        ends.append(policy.linear.bias.detach())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
    known = history.metrics["eval/mean_reward"].dropna()
    assert list(known.index) == [2, 4, 6, 8, 10, 12]
    assert known[12] > known[2]
    assert history.metrics["eval/spread"].dropna().nunique() == 6


def test_batch_norm_learns_in_training_and_not_in_evaluation(tmp_path: Path) -> None:
    def train(steps: int, **options: Any) -> dict[str, Tensor]:
        torch.manual_seed(2)
        actor = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
        frozen = nn.Linear(1, 1).requires_grad_(False)

        def run(actor: nn.Module, frozen: nn.Module) -> None:
            with pyro.plate("n", 4):
                mean = actor(torch.randn(4, 1)) + frozen(torch.ones(4, 1))
                ppgrad.cost("f", ppgrad.policy("a", dist.Normal(mean.squeeze(-1), 1.0)) ** 2)

        fit(ExpectedReturn(), run, args=(actor, frozen), steps=steps, **options)
        return {**actor.state_dict(), **{f"frozen.{k}": v for k, v in frozen.state_dict().items()}}

    whole = train(6)
    assert int(whole["1.num_batches_tracked"]) == 6
    train(3, checkpoint=tmp_path / "a.pt", evaluate_every=2)
    rest = train(6, checkpoint=tmp_path / "a.pt", resume=True)
    assert all(torch.equal(whole[name], rest[name]) for name in whole)
