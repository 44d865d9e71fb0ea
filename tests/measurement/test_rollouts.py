"""`rollouts`: traces as an ArviZ object."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import Enumerate
from ppgrad.testing.problems import parameters


def episode(steps: int = 4) -> None:
    p = parameters({"theta": -0.4})["theta"]
    with pyro.plate("episodes", 3):
        x = torch.ones(3)
        for t in range(steps):
            a = ppgrad.policy(f"a_{t}", dist.Normal(p * x, 0.5))
            x = x + a
            ppgrad.reward(f"r_{t}", -(x**2))


def test_groups_and_dimensions() -> None:
    found = ppgrad.rollouts(episode, num=20, seed=1)
    rollouts, log_probs = found["rollouts"], found["rollouts_log_prob"]
    assert rollouts["a_0"].dims == ("chain", "draw", "a_0_episodes")
    assert rollouts["a_0"].shape == (2, 10, 3)
    assert rollouts["reward"].dims == ("chain", "draw", "time")
    assert rollouts["reward"].shape == (2, 10, 4)
    assert rollouts["ret"].dims == ("chain", "draw")
    np.testing.assert_allclose(rollouts["reward"].sum("time"), rollouts["ret"], rtol=1e-5)
    x = 1 + rollouts["a_0"].values
    np.testing.assert_allclose(rollouts["r_0"].values, -(x**2), rtol=1e-5)
    np.testing.assert_allclose(rollouts["reward"].values[..., 0], -(x**2).sum(-1), rtol=1e-5)
    expected = dist.Normal(-0.4, 0.5).log_prob(torch.as_tensor(rollouts["a_0"].values)).numpy()
    np.testing.assert_allclose(log_probs["a_0"].values, expected, rtol=1e-4)
    assert float(arviz.ess(rollouts["ret"].values)) > 0


def test_a_seed_fixes_them_and_nothing_else_moves() -> None:
    state = torch.get_rng_state()
    first, second = (ppgrad.rollouts(episode, num=6, seed=3)["rollouts"]["ret"].values for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not list(pyro.get_param_store())


def test_an_odd_number_is_one_chain() -> None:
    assert ppgrad.rollouts(episode, args=(2,), num=5)["rollouts"]["reward"].shape == (1, 5, 2)
    with pytest.raises(ppgrad.InvalidInput, match="num=0"):
        ppgrad.rollouts(episode, num=0)


def test_sites_that_some_runs_do_not_reach_are_nan(caplog: pytest.LogCaptureFixture) -> None:
    def dynamic() -> None:
        a = ppgrad.policy("a", dist.Bernoulli(torch.tensor(0.5)))
        ppgrad.reward("r", a)
        if a > 0:
            ppgrad.policy("b", dist.Normal(0.0, 1.0))
            ppgrad.reward("bonus", 2.0)

    rollouts = ppgrad.rollouts(dynamic, num=40)["rollouts"]
    a, b = rollouts["a"].values, rollouts["b"].values
    assert np.array_equal(np.isnan(b), a == 0)
    np.testing.assert_allclose(rollouts["ret"].values, 3 * a)
    assert "runs in a loop" in caplog.text


def test_observed_sites_and_numpy_rewards() -> None:
    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.5))
        ppgrad.reward("r", np.sin(x.numpy()))

    found = ppgrad.rollouts(program, num=8)
    np.testing.assert_allclose(found["rollouts"]["r"].values, np.sin(found["rollouts"]["x"].values), rtol=1e-5)
    assert "y" in found["rollouts_log_prob"]


@pytest.mark.parametrize("infer", [{"enumerate": "parallel"}, {"enumerate": "sequential"}, {"gradient": Enumerate()}])
def test_a_site_that_is_to_be_summed_has_one_value_in_a_run(infer: dict[str, Any]) -> None:
    def program() -> None:
        with pyro.plate("n", 3):
            z = pyro.sample("z", dist.Bernoulli(0.4), infer=infer)
            ppgrad.reward("r", z)

    found = ppgrad.rollouts(program, num=500)["rollouts"]
    assert found["z"].shape == (2, 250, 3)
    assert abs(float(found["z"].mean()) - 0.4) < 5 * math.sqrt(0.24 / 1500)


@pytest.mark.parametrize(
    ("site", "variable"),
    [("agent/a", "agent.a"), ("a/b/c", "a.b.c"), ("chain", "site_chain"), ("draw", "site_draw"), ("time", "site_time")],
)
def test_names_that_a_file_cannot_have_are_changed(site: str, variable: str, tmp_path: Path) -> None:
    def program() -> None:
        with pyro.plate("world/plate", 3):
            ppgrad.reward("earned/r", ppgrad.policy(site, dist.Normal(0.0, 1.0)))

    file = tmp_path / "rollouts.nc"
    ppgrad.rollouts(program, num=4).to_netcdf(str(file))
    read = arviz.from_netcdf(str(file))
    assert read["rollouts"][variable].shape == (2, 2, 3)
    assert read["rollouts"][variable].dims[2] == f"{variable}_world.plate"
    assert read["rollouts"]["earned.r"].shape == (2, 2, 3)


def test_two_sites_that_would_have_one_name_are_refused() -> None:
    def program() -> None:
        ppgrad.policy("a.b", dist.Normal(0.0, 1.0))
        ppgrad.reward("r", ppgrad.policy("a/b", dist.Normal(0.0, 1.0)))

    with pytest.raises(ppgrad.InvalidProgram, match=r"'a/b' one of them"):
        ppgrad.rollouts(program, num=2)
