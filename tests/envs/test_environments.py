"""Torch environments against Gymnasium's, step for step, and against calculus."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import InvalidInput
from ppgrad.envs import BallWithWall, CartPole, Environment, LinearQuadratic, MountainCarContinuous, Pendulum

ENVIRONMENTS: list[Environment] = [LinearQuadratic(), Pendulum(), CartPole(), MountainCarContinuous(), BallWithWall()]


def name_of(env: object) -> str:
    return type(env).__name__


def random_actions(env: Environment, count: int, generator: torch.Generator) -> Tensor:
    if not env.action_space.shape:
        return torch.randint(2, (count,), generator=generator)
    # Beyond the bounds, too.
    return 2.5 * torch.randn(count, *env.action_space.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("id", "env", "spread", "tolerance"),
    [
        # (θ, ω) past half a turn and up to the highest speed.
        ("Pendulum-v1", Pendulum(), (9.0, 8.0), 1e-12),
        ("CartPole-v1", CartPole(), (2.4, 3.0, 0.22, 3.0), 1e-12),
        # Gymnasium computes this one in single precision.
        ("MountainCarContinuous-v0", MountainCarContinuous(), (1.2, 0.07), 3e-7),
    ],
    ids=["Pendulum", "CartPole", "MountainCarContinuous"],
)
def test_steps_are_gymnasiums(id: str, env: Environment, spread: tuple[float, ...], tolerance: float) -> None:
    theirs = gymnasium.make(id).unwrapped
    theirs.reset(seed=0)
    generator = torch.Generator().manual_seed(1)
    spreads = torch.tensor(spread, dtype=torch.float64)
    states = spreads * (2 * torch.rand(500, len(spread), generator=generator, dtype=torch.float64) - 1)
    if id.startswith("Mountain"):  # some at the left end, some near the goal
        states[:100, 0], states[100:200, 0] = -1.19, 0.44
        states = states.float().double()
    actions = random_actions(env, 500, generator)
    following = env.transition(states, actions)
    rewards, terminal = env.reward(states, actions, following), env.terminal(following)
    seen = env.observation(following)
    ends = 0
    for i in range(500):
        state = states[i].numpy()
        theirs.state = state.astype(np.float32) if id.startswith("Mountain") else state.copy()
        if id == "CartPole-v1":
            theirs.steps_beyond_terminated = None
            action = int(actions[i])
        else:
            action = actions[i].numpy()
        observation, reward, terminated, truncated, _ = theirs.step(action)
        np.testing.assert_allclose(following[i].numpy(), theirs.state, rtol=0, atol=tolerance)
        np.testing.assert_allclose(seen[i].numpy(), observation, rtol=0, atol=2e-6)
        assert float(rewards[i]) == pytest.approx(float(reward), abs=max(tolerance, 1e-12) * 100)
        assert bool(terminal[i]) == terminated
        assert not truncated
        ends += terminated
    assert ends > 0 or id == "Pendulum-v1"


@pytest.mark.parametrize("id", ["Pendulum-v1", "CartPole-v1", "MountainCarContinuous-v0"])
def test_initial_states_and_actions_are_gymnasiums(id: str) -> None:
    env = {"P": Pendulum(), "C": CartPole(), "M": MountainCarContinuous()}[id[0]]
    theirs = gymnasium.make(id)
    space = ppgrad.envs.GymnasiumEnv(id).action_space
    assert env.action_space == space
    ours = env.initial(4000)
    drawn = np.stack([theirs.reset(seed=i)[0] for i in range(400)])
    lowest, highest = env.observation(ours).min(0).values.numpy(), env.observation(ours).max(0).values.numpy()
    np.testing.assert_allclose(lowest, drawn.min(0), atol=0.06 * (highest - lowest).max())
    np.testing.assert_allclose(highest, drawn.max(0), atol=0.06 * (highest - lowest).max())


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_keep_dtype_and_batch(env: Environment, dtype: torch.dtype) -> None:
    states = env.initial(6).to(dtype).reshape(2, 3, -1)
    actions = random_actions(env, 6, torch.Generator().manual_seed(0)).reshape(2, 3, *env.action_space.shape)
    actions = actions.to(dtype) if actions.is_floating_point() else actions
    following = env.transition(states, actions)
    assert isinstance(following, Tensor)
    assert (following.dtype, following.shape) == (dtype, states.shape)
    reward = env.reward(states, actions, following)
    assert (reward.dtype, reward.shape) == (dtype, (2, 3))
    assert (env.terminal(following).dtype, env.terminal(following).shape) == (torch.bool, (2, 3))
    assert env.observation(states).dtype == dtype
    one = env.transition(states[1, 2], actions[1, 2])
    torch.testing.assert_close(one, following[1, 2])


@pytest.mark.parametrize(
    ("env", "state", "action"),
    [
        (LinearQuadratic(), [0.3, -0.5], [0.7]),
        (Pendulum(), [0.4, -1.0], [0.5]),
        (CartPole(), [0.1, -0.2, 0.05, 0.3], 0.4),
        (MountainCarContinuous(), [-0.5, 0.01], [0.5]),
        (BallWithWall(), [0.0, 0.0], [1.1]),
    ],
    ids=lambda value: name_of(value) if isinstance(value, Environment) else "",
)
def test_dynamics_are_differentiable(env: Environment, state: list[float], action: object) -> None:
    start = torch.tensor(state, dtype=torch.float64, requires_grad=True)
    act = torch.tensor(action, dtype=torch.float64, requires_grad=True)

    def both(start: Tensor, act: Tensor) -> tuple[Tensor, Tensor]:
        following = env.transition(start, act)
        return following, env.reward(start, act, following)

    assert torch.autograd.gradcheck(both, (start, act))


def test_torque_beyond_the_bound_has_no_gradient() -> None:
    action = torch.tensor([[3.0], [1.0]], requires_grad=True)
    Pendulum().transition(torch.zeros(2, 2), action)[:, 1].sum().backward()
    assert action.grad is not None
    torch.testing.assert_close(action.grad[:, 0], torch.tensor([0.0, 0.15]))


# Linear-quadratic control.


def test_closed_form_is_the_reference() -> None:
    env = LinearQuadratic()
    zero, best = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[2.28271, 3.72740]], dtype=torch.float64)
    assert round(float(env.expected_return(zero, 0.1, 20)), 4) == -70.7543
    assert round(float(env.expected_return(best, 0.1, 20)), 5) == -18.28283
    assert [round(float(g), 4) for g in env.gradient(zero, 0.1, 20)[0]] == [73.0877, 83.2712]
    assert env.gradient(best, 0.1, 20).abs().max() < 1e-4


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_value_is_bellmans(noise: float) -> None:
    """V_T averaged over initial states is J, and V_t = E[r + V_{t−1}], exactly for quadratic functions."""
    env = LinearQuadratic(noise=noise)
    gain = torch.tensor([[0.8, 1.1]], dtype=torch.float64)
    points = math.sqrt(2.0) * torch.cat([torch.eye(2), -torch.eye(2)]).double()  # mean of x xᵀ is I
    average = env.value(points, gain, 0.5, 7).mean()
    torch.testing.assert_close(average, env.expected_return(gain, 0.5, 7))
    torch.testing.assert_close(env.value(points, gain, 0.5, 0), env.final_reward(points))
    state = torch.tensor([0.4, -1.3], dtype=torch.float64)
    noises = torch.tensor([0.5, -0.5], dtype=torch.float64).reshape(2, 1)
    actions = -(gain @ state) + noises  # second moment σ²
    following = env.transition(state.expand(2, 2), actions)
    mean = following if isinstance(following, Tensor) else following.mean
    reward = env.reward(state.expand(2, 2), actions, mean)
    scatter = noise * math.sqrt(2.0) * torch.cat([torch.eye(2), -torch.eye(2)]).double().unsqueeze(1)
    later = env.value(mean + scatter, gain, 0.5, 6).mean(0)
    torch.testing.assert_close((reward + later).mean(), env.value(state, gain, 0.5, 7))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: LinearQuadratic(dynamics=((1.0,), (2.0,))), ["dynamics", "(2, 2)"]),
        (lambda: LinearQuadratic(action_cost=((1.0, 0.0), (0.0, 1.0))), ["action_cost", "(1, 1)"]),
        (lambda: LinearQuadratic(noise=-1.0), ["noise=-1.0"]),
        (lambda: LinearQuadratic(noise=math.nan), ["noise=nan"]),
        (lambda: LinearQuadratic(noise="a"), ["noise='a'"]),
        (lambda: LinearQuadratic(control=(0.0, 0.1)), ["control=(0.0, 0.1)", "rows"]),
        (lambda: MountainCarContinuous(goal_speed=math.nan), ["goal_speed=nan"]),
        (lambda: Pendulum(gravity=-1), ["gravity=-1", "zero or more"]),
        (lambda: BallWithWall(speed="x"), ["speed='x'", "positive"]),
        (lambda: BallWithWall(speed=0.0), ["speed=0.0", "positive"]),
        (lambda: BallWithWall(height=50.0).clearing_angles, ["no throw clears", "height"]),
    ],
)
def test_wrong_arguments_are_named(build, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        build()
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


# The ball with a wall.


def test_reach_jumps_where_the_wall_is_just_cleared() -> None:
    env = BallWithWall()
    for angle, inwards in zip(env.clearing_angles, (1, -1), strict=True):
        outside, inside = env.reach(torch.tensor([angle - inwards * 1e-6, angle + inwards * 1e-6]).double())
        assert outside == env.distance
        assert inside == pytest.approx(env.speed**2 * math.sin(2 * angle) / env.gravity, abs=1e-4)
        height = env.distance * math.tan(angle) - env.gravity * env.distance**2 / (
            2 * (env.speed * math.cos(angle)) ** 2
        )
        assert height == pytest.approx(env.height)
