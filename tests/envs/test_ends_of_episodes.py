"""Episodes that end: what they earn, which draws count, what is expected after they were cut off."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pyro
import pytest
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    ExpectedReturn,
    InvalidInput,
    InvalidProgram,
    LeaveOneOut,
    LocalExpectation,
    MaxEntReturn,
    Pathwise,
    ScoreFunction,
)
from ppgrad.envs import (
    CartPole,
    Discrete,
    Environment,
    GymnasiumEnv,
    LinearQuadratic,
)
from tests.envs.programs import FAILURE_RATE, Linear, Logits


class Countdown(Environment):
    """An episode that starts at n pays its action in each step and terminates after n."""

    action_space = Discrete(2)

    def initial(self, episodes: int) -> Tensor:
        return 1.0 + torch.arange(episodes).reshape(-1, 1)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        return state - 1

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return 1.0 + action

    def terminal(self, state: Tensor) -> Tensor:
        return state[..., 0] <= 0

    def final_reward(self, state: Tensor) -> Tensor:
        return torch.full_like(state[..., 0], 100.0)


def always(choice: int) -> Logits:
    policy = Logits(1)
    nn.init.zeros_(policy.layer.weight)
    with torch.no_grad():
        policy.layer.bias.copy_(torch.tensor([-50.0, 50.0] if choice else [50.0, -50.0]))
    return policy


def test_finished_episodes_earn_nothing() -> None:
    episodes = ppgrad.rollout(Countdown(), always(1), 3, episodes=5)()
    assert episodes.returns.tolist() == [2.0, 4.0, 6.0, 106.0, 106.0]
    assert episodes.lengths.tolist() == [1.0, 2.0, 3.0, 3.0, 3.0]
    assert episodes.terminated.tolist() == [True, True, True, False, False]
    assert episodes.truncated.tolist() == [False, False, False, True, True]
    assert episodes.observation[:, 0].tolist() == [0.0, 0.0, 0.0, 1.0, 2.0]


def test_draws_of_finished_episodes_do_not_count() -> None:
    program = ppgrad.rollout(Countdown(), Logits(1), 3, episodes=4)
    trace = pyro.poutine.trace(program).get_trace()
    trace.compute_log_prob()
    assert (trace.nodes["a_2"]["log_prob"] != 0).tolist() == [False, False, True, True]
    served = {}

    class Watching(ScoreFunction):
        def surrogate(self, draw, signal, memory):
            served[draw.name] = draw.log_prob.detach().reshape(-1)
            return super().surrogate(draw, signal, memory)

    ppgrad.gradient(ExpectedReturn(Watching(LeaveOneOut(over="episodes"))), program, seed=0)
    assert (served["a_2"] != 0).tolist() == [False, False, True, True]
    assert (served["a_0"] != 0).all()


@pytest.mark.parametrize("temperature", [None, 0.5], ids=["return", "entropy"])
def test_gradients_of_episodes_that_end_are_exact(temperature: float | None) -> None:
    """Each step pays P(1), and temperature times the entropy of its action; the states of the steps are known."""
    policy = Logits(1)
    program = ppgrad.rollout(Countdown(), policy, 3, episodes=4)
    fn = policy(torch.tensor([1.0, 2.0, 1.0, 3.0, 2.0, 1.0, 4.0, 3.0, 2.0]).unsqueeze(-1))
    value = fn.probs[:, 1].sum() + (0.0 if temperature is None else temperature * fn.entropy().sum())
    names, parameters = zip(*policy.named_parameters(prefix="policy"), strict=True)
    exact = dict(zip(names, torch.autograd.grad(value, parameters), strict=True))
    for estimator in (ScoreFunction(), ScoreFunction(LeaveOneOut(over="episodes")), LocalExpectation()):
        made = ExpectedReturn(estimator) if temperature is None else MaxEntReturn(estimator, temperature=temperature)
        found = ppgrad.measure(made, program, replicates=5_000, reference=exact)
        for name, p_value in found.p_value.items():
            rounding = found.bias[name].abs() < 1e-5 * (1 + exact[name].abs())
            assert ((p_value > FAILURE_RATE) | rounding).all()


class Fifty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(50.0))

    def forward(self, observation: Tensor) -> Tensor:
        return self.value.expand(observation.shape[:-1])


@pytest.mark.parametrize("env", [CartPole(), GymnasiumEnv("CartPole-v1", max_episode_steps=3)], ids=repr)
def test_what_is_expected_after_the_horizon_or_a_time_limit_counts(env: object) -> None:
    policy = Logits()
    horizon = 3 if isinstance(env, CartPole) else 5
    program = ppgrad.rollout(env, policy, horizon, episodes=4, bootstrap=Fifty())
    objective = ExpectedReturn(ScoreFunction(LeaveOneOut(over="episodes")), discount=0.9)
    assert -objective.loss(program, None) / 4 == pytest.approx(1 + 0.9 + 0.81 + 0.729 * 50)
    assert set(ppgrad.gradient(objective, program)) == {f"policy.{name}" for name, _ in policy.named_parameters()}
    history = ppgrad.fit(objective, program, steps=2, progress=False)
    assert set(history.metrics["rollout/ep_rew_mean"]) == {3.0}, "predictions are not earned"


def test_nothing_is_expected_after_a_terminal_state() -> None:
    program = ppgrad.rollout(CartPole(), Logits(), 200, episodes=4, bootstrap=Fifty())
    with pyro.poutine.trace() as run:
        episodes = program()
    torch.testing.assert_close(run.trace.nodes["v_200"]["fn"].log_factor, 50.0 * episodes.truncated)


@pytest.mark.parametrize("horizon", [1, 2, 3, 4])
def test_an_end_at_the_horizon_is_an_end(horizon: int) -> None:
    """Episode n terminates after n steps: nothing is expected of one that ends in the last step."""
    program = ppgrad.rollout(Countdown(), always(0), horizon, episodes=4, bootstrap=Fifty())
    with pyro.poutine.trace() as run:
        episodes = program()
    lasts = torch.arange(1, 5) > horizon
    torch.testing.assert_close(run.trace.nodes[f"v_{horizon}"]["fn"].log_factor, 50.0 * lasts)
    assert episodes.terminated.tolist() == (~lasts).tolist()
    earned = torch.arange(1.0, 5).clamp(max=horizon) + 150.0 * lasts
    assert -ExpectedReturn(ScoreFunction()).loss(program, None) == pytest.approx(float(earned.sum()))


class TwoSteps(gymnasium.Env[Any, Any]):
    """Pays 1 a step and terminates after two of them."""

    observation_space = gymnasium.spaces.Box(0.0, 2.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.full(1, self.steps, np.float32), 1.0, self.steps == 2, False, {}


@pytest.mark.parametrize("horizon", [1, 2, 3])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_an_end_at_the_time_limit_is_an_end(horizon: int, limit: int) -> None:
    """The limit truncates an episode in the step in which it terminates, too."""
    gymnasium.register("TwoSteps-v0", TwoSteps, disable_env_checker=True)
    try:
        with GymnasiumEnv("TwoSteps-v0", max_episode_steps=limit) as env:
            program = ppgrad.rollout(env, Logits(1), horizon, episodes=3, bootstrap=Fifty())
            earned = -ExpectedReturn(ScoreFunction()).loss(program, None) / 3
    finally:
        del gymnasium.registry["TwoSteps-v0"]
    assert earned == pytest.approx(2.0 if min(horizon, limit) >= 2 else 51.0)


def test_a_gradient_goes_through_the_state_that_is_valued() -> None:
    value = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(0))
    env, policy = LinearQuadratic(), Linear((1.0, 1.0))
    found = ppgrad.gradient(ExpectedReturn(Pathwise()), ppgrad.rollout(env, policy, 3, bootstrap=value), seed=0)
    plain = ppgrad.gradient(ExpectedReturn(Pathwise()), ppgrad.rollout(env, policy, 3), seed=0)
    assert set(found) == set(plain) == {"policy.gain"}
    assert not torch.equal(found["policy.gain"], plain["policy.gain"])


def test_a_compiled_program_knows_what_the_critic_has_learned() -> None:
    value = Fifty()
    program = ppgrad.rollout(CartPole(), Logits(), 3, episodes=2, bootstrap=value)
    objective = ExpectedReturn(ScoreFunction(), compile="eager")
    assert objective.loss(program, None) == pytest.approx(-106)
    with torch.no_grad():
        value.value.fill_(10.0)
    assert objective.loss(program, None) == pytest.approx(-26)


def test_a_bootstrap_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"rollout\(bootstrap=50\.0\): write a torch\.nn\.Module"):
        ppgrad.rollout(CartPole(), Logits(), 3, bootstrap=50.0)
    with pytest.raises(InvalidProgram, match="bootstrap of site 'v_3' returned shape"):
        ppgrad.rollout(CartPole(), Logits(), 3, episodes=2, bootstrap=nn.Linear(4, 2))()
