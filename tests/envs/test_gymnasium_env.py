"""`GymnasiumEnv`: episodes of NumPy environments in a Pyro program."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from gymnasium import spaces
from scipy import stats
from torch import Tensor, nn

import ppgrad
from ppgrad import ExpectedReturn, InvalidInput, InvalidProgram, LeaveOneOut, NonFinite, Pathwise, ScoreFunction
from ppgrad.envs import Box, CartPole, Discrete, Environment, GymnasiumEnv, Pendulum
from ppgrad.testing import SUITE_FAILURE_RATE

FAILURE_RATE = SUITE_FAILURE_RATE / 500
MODES = ("next_step", "same_step", "disabled")


class Countdown(gymnasium.Env[Any, Any]):
    """Starts at a random number n, pays n in each step and ends after n: terminated if n is even, else truncated."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, space: spaces.Space | None = None, nan: str = "", render_mode: str | None = None):
        self.observation_space = spaces.Box(-1.0, 100.0, (2,))
        self.action_space = spaces.Discrete(2) if space is None else space
        self.nan, self.actions = nan, []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.start = self.left = int(self.np_random.integers(1, 5))
        return np.array([self.start, self.left], np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.left > 0, "a finished episode was played on"
        self.actions.append(action)
        self.left -= 1
        done, even = self.left == 0, self.start % 2 == 0
        left, reward = float(self.left), float(self.start)
        if self.left == 0:
            left = np.nan if self.nan == "observation" else left
            reward = np.nan if self.nan == "reward" else reward
        return np.array([self.start, left], np.float32), reward, done and even, done and not even, {}


@pytest.fixture(autouse=True)
def countdown() -> Iterator[None]:
    gymnasium.register("Countdown-v0", Countdown, disable_env_checker=True)
    yield
    del gymnasium.registry["Countdown-v0"]


class Logits(nn.Module):
    def __init__(self, inputs: int = 2, choices: int = 2):
        super().__init__()
        self.layer = nn.Linear(inputs, choices)

    def forward(self, observation: Tensor) -> dist.Distribution:
        return dist.Categorical(logits=self.layer(observation))


@pytest.mark.parametrize("mode", [None, *MODES])
def test_each_copy_plays_one_episode(mode: Any) -> None:
    with GymnasiumEnv("Countdown-v0", autoreset_mode=mode) as env:
        program = ppgrad.rollout(env, Logits(), 3, episodes=40)
        for _ in range(3):
            episodes = program()
            start = episodes.observation[:, 0]
            assert set(start.tolist()) == {1.0, 2.0, 3.0, 4.0}
            assert torch.equal(episodes.lengths, start.clamp(max=3))
            assert torch.equal(episodes.returns, start * episodes.lengths)
            assert torch.equal(episodes.terminated, start == 2)
            assert torch.equal(episodes.truncated, start != 2)
            assert torch.equal(episodes.observation[:, 1], (start - 3).clamp(min=0))


def test_modes_play_the_same_episodes() -> None:
    policy, runs = Logits(), []
    for mode in MODES:
        with GymnasiumEnv("Countdown-v0", autoreset_mode=mode) as env:
            program = ppgrad.rollout(env, policy, 4, episodes=10)
            runs.append(ppgrad.gradient(ExpectedReturn(ScoreFunction()), program, seed=4))
    assert all(torch.equal(runs[0][name], run[name]) for run in runs[1:] for name in run)


def test_run_is_over_when_all_episodes_are() -> None:
    with GymnasiumEnv("Countdown-v0") as env:
        trace = pyro.poutine.trace(ppgrad.rollout(env, Logits(), 50, episodes=30)).get_trace()
    assert [name for name in trace.nodes if name.startswith("a_")] == ["a_0", "a_1", "a_2", "a_3"]


def test_one_seed_one_rollout() -> None:
    policy, objective = Logits(4), ExpectedReturn(ScoreFunction(LeaveOneOut(over="episodes")))
    found = []
    for _ in range(2):  # another environment, too
        with GymnasiumEnv("CartPole-v1") as env:
            program = ppgrad.rollout(env, policy, 40, episodes=6)
            found += [ppgrad.gradient(objective, program, seed=seed) for seed in (1, 1, 2)]
    weights = [gradient["policy.layer.weight"] for gradient in found]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[3])
    assert torch.equal(weights[2], weights[5])
    assert not torch.equal(weights[0], weights[2])


def test_particles_and_replicates_run_in_a_loop(caplog: pytest.LogCaptureFixture) -> None:
    with GymnasiumEnv("Countdown-v0") as env, caplog.at_level(logging.WARNING, logger="ppgrad"):
        program = ppgrad.rollout(env, Logits(), 4, episodes=3)
        objective = ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=4)
        found = ppgrad.measure(objective, program, replicates=20)
        runs = ppgrad.rollouts(program, num=4)
    assert (found.variance["policy.layer.bias"] > 0).all()
    assert "Gymnasium plays in NumPy" in caplog.text
    # The mean start is 2.5 and E[n²] = 7.5.
    assert 0 < float(runs["rollouts"]["ret"].mean()) < 3 * 16
    assert runs["rollouts"]["a_0"].shape == (2, 2, 3)


def test_svi_trains() -> None:
    class Paying(Countdown):
        def step(self, action: Any) -> Any:
            observation, _, terminated, truncated, info = super().step(action)
            return observation, float(action), terminated, truncated, info

    gymnasium.register("Paying-v0", Paying, disable_env_checker=True)
    try:
        policy, objective = Logits(), ExpectedReturn(ScoreFunction(LeaveOneOut(over="episodes")))
        with GymnasiumEnv("Paying-v0") as env:
            program = ppgrad.rollout(env, policy, 4, episodes=16)
            svi = pyro.infer.SVI(program, None, pyro.optim.Adam({"lr": 0.1}), loss=objective)
            for _ in range(60):
                svi.step()
            episodes = program()
    finally:
        del gymnasium.registry["Paying-v0"]
    assert (episodes.returns / episodes.lengths).mean() > 0.9


# The torch environments and Gymnasium's.


@pytest.mark.parametrize(
    ("id", "env", "policy", "horizon"),
    [
        ("CartPole-v1", CartPole(), Logits(4), 60),
        ("Pendulum-v1", Pendulum(), lambda seen: dist.Normal(2 * seen[:, 1:2], 0.5).to_event(1), 20),
    ],
    ids=["CartPole", "Pendulum"],
)
def test_returns_have_one_distribution(id: str, env: Environment, policy: Any, horizon: int) -> None:
    ours = ppgrad.rollout(env, policy, horizon, episodes=1500)()
    with GymnasiumEnv(id) as theirs:
        others = ppgrad.rollout(theirs, policy, horizon, episodes=1500)()
    p_value = stats.mannwhitneyu(ours.returns.numpy(), others.returns.numpy()).pvalue
    assert p_value > FAILURE_RATE, f"{ours.returns.mean()} against {others.returns.mean()}"


def test_gradients_have_one_mean() -> None:
    policy, objective = Logits(4), ExpectedReturn(ScoreFunction(LeaveOneOut(over="episodes")))
    ours = ppgrad.measure(objective, ppgrad.rollout(CartPole(), policy, 30, episodes=32), replicates=400)
    with GymnasiumEnv("CartPole-v1") as env:
        program = ppgrad.rollout(env, policy, 30, episodes=32)
        theirs = ppgrad.measure(objective, program, replicates=60)
    for name in ours.mean:
        test = stats.ttest_ind(ours.draws[name], theirs.draws[name], equal_var=False)
        assert (test.pvalue > FAILURE_RATE).all()


# Spaces and actions.


@pytest.mark.parametrize(
    ("space", "expected", "policy"),
    [
        (spaces.Discrete(3, start=5), Discrete(3), Logits(2, 3)),
        (spaces.MultiBinary(2), Discrete((2, 2)), lambda x: dist.Bernoulli(logits=x).to_event(1)),
        (
            spaces.MultiDiscrete([3, 3]),
            Discrete((3, 3)),
            lambda x: dist.Categorical(logits=x.unsqueeze(-1).expand(-1, 2, 3)).to_event(1),
        ),
        (spaces.Box(-0.25, 0.5, (2,)), Box((2,), -0.25, 0.5), lambda x: dist.Normal(x, 1.0).to_event(1)),
    ],
    ids=["Discrete", "MultiBinary", "MultiDiscrete", "Box"],
)
def test_actions_arrive_in_their_space(space: spaces.Space, expected: Any, policy: Any) -> None:
    with GymnasiumEnv("Countdown-v0", space=space) as env:
        assert env.action_space == expected
        ppgrad.rollout(env, policy, 4, episodes=6)()
        arrived = [action for copy in env.vector(6).envs for action in copy.unwrapped.actions]
    assert len(arrived) > 6
    assert all(space.contains(action) for action in arrived)
    assert len({str(action) for action in arrived}) > 1


def test_copies_are_made_once_and_closed() -> None:
    env = GymnasiumEnv("Countdown-v0")
    program = ppgrad.rollout(env, Logits(), 2, episodes=3)
    vector = env.vector(3)
    program()
    assert env.vector(3) is vector
    env.close()
    assert vector.closed
    assert program().lengths.shape == (3,)  # makes new ones
    env.close()


# Bad input.


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: GymnasiumEnv("CartPool-v1"), ["'CartPool-v1'", "CartPole"]),
        (lambda: GymnasiumEnv("CartPole-v99"), ["'CartPole-v99'"]),
        (lambda: GymnasiumEnv(3), ["GymnasiumEnv(3)", "'CartPole-v1'"]),
        (lambda: GymnasiumEnv(None), ["GymnasiumEnv(None)"]),
        (lambda: GymnasiumEnv("no_such_module:Env-v0"), ["no_such_module"]),
        (lambda: GymnasiumEnv("CartPole-v1", autoreset_mode="never"), ["'never'", "next_step"]),
        (lambda: GymnasiumEnv("CartPole-v1", wind=3).vector(1), ["'CartPole-v1'", "wind"]),
        (lambda: GymnasiumEnv("CartPole-v1", vectorization_mode="fast").vector(1), ["'CartPole-v1'", "fast"]),
        (
            lambda: GymnasiumEnv("Countdown-v0", space=spaces.Tuple([spaces.Discrete(2)])).action_space,
            ["'Countdown-v0'", "Tuple", "Wrap"],
        ),
    ],
)
def test_environments_that_cannot_be(build: Any, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        build()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
    assert "?." not in str(caught.value)


def test_gymnasium_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(InvalidInput, match=r"pip install 'ppgrad\[envs\]'"):
        GymnasiumEnv("CartPole-v1")


@pytest.mark.parametrize(
    ("space", "mend"),
    [
        (spaces.MultiDiscrete([3, 3]), r"Write Categorical\(logits=…\)\.to_event\(1\), .* \(episodes, 2, 3\)\."),
        (spaces.MultiDiscrete([3, 4]), "one Discrete action"),
    ],
)
def test_one_choice_does_not_fit_several(space: spaces.Space, mend: str) -> None:
    with GymnasiumEnv("Countdown-v0", space=space) as env, pytest.raises(InvalidProgram, match=mend):
        ppgrad.rollout(env, Logits(2, 3), 2, episodes=2)()


# No gradient goes through NumPy.


def pendulum(env: GymnasiumEnv) -> Any:
    policy = ppgrad.GaussianPolicy(3, 1, hidden=())
    return ppgrad.rollout(env, policy, 3, episodes=4)


@pytest.mark.parametrize("objective", [ExpectedReturn, ppgrad.MaxEntReturn])
def test_the_default_is_the_score_function(objective: Any) -> None:
    with GymnasiumEnv("Pendulum-v1") as env:
        program = pendulum(env)
        found = ppgrad.gradient(objective(strict=True), program, seed=0)
        score = ppgrad.gradient(objective(ScoreFunction()), program, seed=0)
    assert all(torch.equal(found[name], score[name]) for name in score)
    assert any(bool(value.any()) for value in score.values())


@pytest.mark.parametrize(
    "estimator",
    [Pathwise(), ppgrad.StickingTheLanding(), ppgrad.Interpolated(0.5), ppgrad.InverseVariance(), ppgrad.Rodeo()],
    ids=repr,
)
def test_estimators_that_differentiate_are_refused(estimator: ppgrad.Estimator) -> None:
    with GymnasiumEnv("Pendulum-v1") as env, pytest.raises(ppgrad.Unsupported) as caught:
        ppgrad.gradient(ExpectedReturn(estimator), pendulum(env), seed=0)
    assert all(word in str(caught.value) for word in (type(estimator).__name__, "'a_0'", "ScoreFunction()"))


def test_an_environment_of_ones_own_may_say_so() -> None:
    class Sealed(Pendulum):
        differentiable = False

    program = ppgrad.rollout(Sealed(), ppgrad.GaussianPolicy(3, 1, hidden=()), 3, episodes=4)
    with pytest.raises(ppgrad.Unsupported, match="'a_0'"):
        ppgrad.gradient(ExpectedReturn(Pathwise()), program, seed=0)
    ppgrad.gradient(ExpectedReturn(Pathwise()), pendulum(Pendulum()), seed=0)


def test_bounds_may_differ_from_number_to_number() -> None:
    space = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32))
    with GymnasiumEnv("Countdown-v0", space=space) as env:
        assert env.action_space == Box((2,), (-1.0, 0.0), (1.0, 4.0))
        fitting = ppgrad.BetaPolicy(2, 2, bounds=([-1, 0], [1, 4]))
        ppgrad.rollout(env, fitting, 2, episodes=2)()
        wide = ppgrad.BetaPolicy(2, 2, bounds=(-1, 4))
        with pytest.raises(InvalidProgram, match=r"Write bounds=\(\[-1, 0\], \[1, 4\]\)"):
            ppgrad.rollout(env, wide, 2, episodes=2)()


def test_policy_that_does_not_fit() -> None:
    with GymnasiumEnv("CartPole-v1") as env, pytest.raises(InvalidProgram, match=r"Normal.*CartPole-v1, Discrete\(2\)"):
        ppgrad.rollout(env, lambda x: dist.Normal(x[:, 0], 1.0), 2, episodes=3)()


@pytest.mark.parametrize(("what", "words"), [("reward", ["reward", "'r_"]), ("observation", ["observation", "'a_"])])
def test_nan_is_named(what: str, words: list[str]) -> None:
    with GymnasiumEnv("Countdown-v0", nan=what) as env:
        program = ppgrad.rollout(env, Logits(), 5, episodes=8)
        for call in (program, lambda: ppgrad.gradient(ExpectedReturn(ScoreFunction()), program, seed=0)):
            with pytest.raises(NonFinite) as caught:
                call()
            assert all(word in str(caught.value) for word in [*words, "step", "nan"])
