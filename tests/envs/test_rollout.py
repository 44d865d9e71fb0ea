"""`rollout`: environments as Pyro programs."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    BetaPolicy,
    Critic,
    ExpectedReturn,
    GaussianPolicy,
    LeaveOneOut,
    Pathwise,
    ScoreFunction,
)
from ppgrad.envs import (
    BallWithWall,
    CartPole,
    Environment,
    LinearQuadratic,
    MountainCarContinuous,
    Pendulum,
)
from tests.envs.programs import FAILURE_RATE, HORIZON, STD, Linear, Logits

BEST = (2.28271, 3.72740)


class Value(nn.Module):
    def __init__(self, gain: Tensor, steps: int):
        super().__init__()
        self.gain, self.steps = gain.detach().clone(), steps

    def forward(self, state: Tensor) -> Tensor:
        return LinearQuadratic().value(state, self.gain, STD, self.steps)


def total_return(policy: Linear) -> None:
    """One reward at the end, so that every score meets the whole return."""
    env, earned = LinearQuadratic(), torch.zeros(1)
    with pyro.plate("episodes", 1):
        state = env.initial(1)
        for t in range(HORIZON):
            action = ppgrad.policy(f"a_{t}", policy(state))
            earned = earned + env.reward(state, action, state)
            state = env.transition(state, action)
        ppgrad.reward("r", earned + env.final_reward(state))


@pytest.mark.parametrize(
    ("gain", "estimator", "variance", "half_digit"),
    [
        ((0.0, 0.0), "total return", 3.4e8, 0.05e8),
        (BEST, "total return", 4.7e6, 0.05e6),
        ((0.0, 0.0), "reward-to-go", 1.3e8, 0.05e8),
        (BEST, "reward-to-go", 1.5e6, 0.05e6),
        ((0.0, 0.0), "value baseline", 4.5e4, 0.05e4),
        (BEST, "value baseline", 1.70, 0.005),
        ((0.0, 0.0), "pathwise", 2.9e4, 0.05e4),
        (BEST, "pathwise", 0.166, 0.0005),
    ],
)
def test_linear_quadratic_variances(
    gain: tuple[float, ...], estimator: str, variance: float, half_digit: float
) -> None:
    policy = Linear(gain)
    program, args, objective = ppgrad.rollout(LinearQuadratic(), policy, HORIZON), (), ExpectedReturn(ScoreFunction())
    if estimator == "total return":
        program, args = total_return, (policy,)
    elif estimator == "value baseline":
        critics = {f"a_{t}": ScoreFunction(Critic(Value(policy.gain, HORIZON - t))) for t in range(HORIZON)}
        objective = ExpectedReturn(sites=critics)
    elif estimator == "pathwise":
        objective = ExpectedReturn(Pathwise())
    exact = {"policy.gain": LinearQuadratic().gradient(policy.gain, STD, HORIZON)}
    found = ppgrad.measure(objective, program, args=args, replicates=100_000, reference=exact)
    assert (found.p_value["policy.gain"] > FAILURE_RATE).all()
    # The standard error of the trace is at most the sum of those of its terms.
    trace, error = float(found.variance["policy.gain"].sum()), float(found.variance_mcse["policy.gain"].sum())
    beyond = max(abs(trace - variance) - half_digit, 0.0)
    assert 2 * stats.norm.sf(beyond / error) > FAILURE_RATE, f"{trace} ± {error}, expected {variance}"


def test_gradient_of_a_plate_of_episodes_adds_up() -> None:
    policy = Linear()
    program = ppgrad.rollout(LinearQuadratic(), policy, HORIZON, episodes=16)
    exact = {"policy.gain": 16 * LinearQuadratic().gradient(policy.gain, STD, HORIZON)}
    for estimator in (ScoreFunction(LeaveOneOut(over="episodes")), Pathwise()):
        found = ppgrad.measure(ExpectedReturn(estimator), program, replicates=10_000, reference=exact)
        assert (found.p_value["policy.gain"] > FAILURE_RATE).all()


def test_random_transitions_are_sites() -> None:
    env, policy = LinearQuadratic(noise=0.3), Linear((0.5, 0.5))
    program = ppgrad.rollout(env, policy, 3, episodes=2)
    names = list(pyro.poutine.trace(program).get_trace().nodes)
    assert [name for name in names if name[:2] in ("s_", "a_", "r_")] == [
        "s_0", "a_0", "s_1", "r_0", "a_1", "s_2", "r_1", "a_2", "s_3", "r_2", "r_3",
    ]  # fmt: skip
    exact = {"policy.gain": 2 * env.gradient(policy.gain, STD, 3)}
    for estimator in (ScoreFunction(), Pathwise()):
        found = ppgrad.measure(ExpectedReturn(estimator), program, replicates=50_000, reference=exact)
        assert (found.p_value["policy.gain"] > FAILURE_RATE).all()


def test_discount_counts_steps() -> None:
    policy = Linear((0.5, 0.5))
    program = ppgrad.rollout(LinearQuadratic(), policy, 4)
    torch.manual_seed(0)
    trace = pyro.poutine.trace(program).get_trace()
    rewards = [trace.nodes[f"r_{t}"]["fn"].log_factor.detach() for t in range(5)]
    discounted = sum(0.9**t * float(reward) for t, reward in enumerate(rewards))
    replayed = pyro.poutine.condition(program, {n: v["value"] for n, v in trace.nodes.items() if n[:2] in ("s_", "a_")})
    assert -ExpectedReturn(discount=0.9).loss(replayed, None) == pytest.approx(discounted, rel=1e-5)


@pytest.mark.parametrize(
    ("env", "policy", "estimator"),
    [
        (CartPole(), Logits(), ScoreFunction(LeaveOneOut(over="episodes"))),
        (LinearQuadratic(), Linear(), Pathwise()),
        (
            Pendulum(),
            lambda seen: dist.Normal(seen[..., :1] * 0 + pyro.param("torque", torch.tensor(0.0)), 1.0).to_event(1),
            Pathwise(),
        ),
    ],
    ids=["CartPole", "LinearQuadratic", "Pendulum"],
)
def test_works_with_all_that_runs_programs(env, policy, estimator) -> None:
    program, objective = ppgrad.rollout(env, policy, 30, episodes=4), ExpectedReturn(estimator)
    first, second = (ppgrad.gradient(objective, program, seed=3) for _ in range(2))
    assert first
    assert all(torch.equal(first[name], second[name]) for name in first)
    found = ppgrad.measure(objective, program, replicates=20)
    assert found.mean.keys() == first.keys()
    runs = ppgrad.rollouts(program, num=4)
    assert runs["rollouts"]["a_29"].sizes["draw"] == 2
    objective = ExpectedReturn(estimator)
    svi = pyro.infer.SVI(program, None, pyro.optim.Adam({"lr": 0.01}), loss=objective)
    svi.step()
    trained = ppgrad.gradient(objective, program, seed=3)
    assert any(not torch.equal(first[name], trained[name]) for name in first)


def test_training_brings_linear_quadratic_control_to_its_best() -> None:
    env, policy = LinearQuadratic(), Linear()
    program = ppgrad.rollout(env, policy, HORIZON, episodes=64)
    svi = pyro.infer.SVI(program, None, pyro.optim.Adam({"lr": 0.4}), loss=ExpectedReturn(Pathwise()))
    for _ in range(200):
        svi.step()
    assert env.expected_return(policy.gain, STD, HORIZON) >= -18.30


def test_particles_and_replicates_agree_between_vmap_and_loop() -> None:
    program = ppgrad.rollout(MountainCarContinuous(), Linear((0.0, -15.0)), 5, episodes=3)
    fast = ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=3)
    slow = ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=3, vectorize_particles=False)
    one, other = (ppgrad.measure(o, program, replicates=300) for o in (fast, slow))
    difference = (one.mean["policy.gain"] - other.mean["policy.gain"]).abs()
    error = (one.mcse["policy.gain"] ** 2 + other.mcse["policy.gain"] ** 2).sqrt()
    assert (2 * stats.norm.sf(difference / error) > FAILURE_RATE).all()


def test_double_precision() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        program = ppgrad.rollout(CartPole(), Logits(), 5, episodes=3)
        gradient = ppgrad.gradient(ExpectedReturn(ScoreFunction()), program, seed=0)
        assert all(value.dtype == torch.float64 for value in gradient.values())
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("env", "policy"),
    [
        (LinearQuadratic(noise=0.1), Linear()),
        (Pendulum(), GaussianPolicy(3, 1, squash=True, bounds=(-2.0, 2.0))),
        (Pendulum(), BetaPolicy(3, 1, bounds=(-2.0, 2.0))),
        (CartPole(), ppgrad.CategoricalPolicy(4, 2)),
        (MountainCarContinuous(), GaussianPolicy(2, 1, covariance="full")),
        (BallWithWall(), GaussianPolicy(2, 1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_rollout_compiles(env: Environment, policy: nn.Module) -> None:
    """Traced, by a backend that runs the graph as it is: the same mean as uncompiled."""
    program = ppgrad.rollout(env, policy, 3, episodes=8)
    results = [
        ppgrad.measure(ExpectedReturn(ScoreFunction(), compile=how), program, replicates=400, seed=seed)
        for seed, how in enumerate((False, "eager"))
    ]
    assert any((result.variance[name] > 0).any() for result in results for name in result.variance)
    for name in results[0].draws:
        eager, traced = (result.draws[name].double().flatten(1).numpy() for result in results)
        told = stats.ttest_ind(eager, traced, equal_var=False)
        moving = (eager.var(0) > 0) | (traced.var(0) > 0)
        assert (told.pvalue[moving] > FAILURE_RATE / moving.size).all()
