"""`rollout`: environments as Pyro programs."""

from __future__ import annotations

import gymnasium
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
    InvalidInput,
    InvalidProgram,
    LeaveOneOut,
    LocalExpectation,
    MaxEntReturn,
    NonFinite,
    Pathwise,
    Policy,
    ScoreFunction,
)
from ppgrad.envs import (
    BallWithWall,
    Box,
    CartPole,
    Discrete,
    Environment,
    GymnasiumEnv,
    LinearQuadratic,
    MountainCarContinuous,
    Pendulum,
)
from ppgrad.testing import SUITE_FAILURE_RATE

FAILURE_RATE = SUITE_FAILURE_RATE / 500
HORIZON, STD = 20, 0.1
BEST = (2.28271, 3.72740)


class Linear(nn.Module):
    """N(−Kx, σ²)."""

    def __init__(self, gain: tuple[float, ...] = (0.0, 0.0)):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([gain]))

    def forward(self, state: Tensor) -> dist.Distribution:
        return dist.Normal(-state @ self.gain.mT, STD).to_event(1)


class Logits(nn.Module):
    def __init__(self, inputs: int = 4, choices: int = 2):
        super().__init__()
        self.layer = nn.Linear(inputs, choices)

    def forward(self, observation: Tensor) -> dist.Distribution:
        return dist.Categorical(logits=self.layer(observation))


class Value(nn.Module):
    def __init__(self, gain: Tensor, steps: int):
        super().__init__()
        self.gain, self.steps = gain.detach().clone(), steps

    def forward(self, state: Tensor) -> Tensor:
        return LinearQuadratic().value(state, self.gain, STD, self.steps)


# The variances of linear-quadratic control, per trajectory.


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


# Episodes that end.


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


# As a program among others.


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


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"horizon": 0}, ["horizon=0", "from 1 up"]),
        ({"horizon": 2.5}, ["horizon=2.5"]),
        ({"horizon": True}, ["horizon=True"]),
        ({"horizon": 3, "episodes": 0}, ["episodes=0"]),
        ({"horizon": 3, "policy": "greedy"}, ["policy='greedy'", "Pyro distribution"]),
        ({"horizon": 3, "policy": ppgrad.GaussianPolicy}, ["GaussianPolicy", "a function or a module"]),
        ({"horizon": 3, "env": "CartPole-v1"}, ["GymnasiumEnv('CartPole-v1')"]),
        ({"horizon": 3, "env": Pendulum}, ["Pendulum", "a class", "Write Pendulum(…)"]),
        ({"horizon": 3, "env": 3}, ["rollout(3, …)", "GymnasiumEnv"]),
        ({"horizon": 3, "env": gymnasium.make("CartPole-v1")}, ["Write GymnasiumEnv('CartPole-v1')"]),
    ],
)
def test_arguments(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        ppgrad.rollout(**{"env": CartPole(), "policy": Logits(), **arguments})  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "policy", "words"),
    [
        (CartPole(), lambda x: dist.Normal(x[:, :1], 1.0).to_event(1), ["Normal", "CartPole", "Discrete(2)"]),
        (CartPole(), lambda x: dist.Categorical(logits=x), ["Categorical", "4 choices", "Discrete(2)"]),
        (CartPole(), lambda x: dist.OneHotCategorical(logits=x[:, :2]), ["OneHotCategorical", "(2,)", "()"]),
        (CartPole(), lambda x: dist.Poisson(x[:, 0].exp()), ["Poisson", "no last choice", "Discrete(2)"]),
        (CartPole(), lambda x: dist.Bernoulli(logits=x).to_event(1), ["Bernoulli", "(4,)"]),
        (Pendulum(), lambda x: dist.Categorical(logits=x), ["Categorical", "Pendulum", "integers"]),
        (Pendulum(), lambda x: dist.Normal(x[:, :1], 1.0), ["Normal", "Pendulum", ".to_event(1)"]),
        (Pendulum(), lambda x: dist.Normal(x[:, 0], 1.0), ["Normal", "event shape (1,)"]),
        (Pendulum(), lambda x: dist.Normal(x[:2, :1], 1.0).to_event(1), ["batch shape", "3 episodes"]),
        (Pendulum(), lambda x: x, ["Tensor", "Return a Pyro distribution"]),
    ],
)
def test_policy_that_does_not_fit(env: Environment, policy, words: list[str]) -> None:
    program = ppgrad.rollout(env, policy, 2, episodes=3)
    with pytest.raises(InvalidProgram) as caught:
        program()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "policy", "words"),
    [
        (Pendulum(), GaussianPolicy(3, 1, squash=True, bounds=(-20, 20)), ["(-20, 20)", "clipped", "bounds=(-2, 2)"]),
        (Pendulum(), BetaPolicy(3, 1, bounds=(-2.0, 3.0)), ["(-2, 3)", "bounds=(-2, 2)"]),
        (
            LinearQuadratic(),
            GaussianPolicy(2, 1, squash=True),
            None,
        ),
        (Pendulum(), BetaPolicy(3, 1, bounds=(-2, 2)), None),
        (BallWithWall(), BetaPolicy(2, 1, bounds=(0, 1.5708)), None),
    ],
)
def test_bounds_that_stick_out_are_refused(env: Environment, policy: Policy, words: list[str] | None) -> None:
    program = ppgrad.rollout(env, policy, 1, episodes=3)
    if words is None:
        program()
        return
    with pytest.raises(InvalidProgram) as caught:
        program()
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("policy", [GaussianPolicy(3, 1, squash=True), BetaPolicy(3, 1)], ids=["squashed", "beta"])
def test_bounds_that_leave_actions_out_are_told_once(policy: Policy) -> None:
    program = ppgrad.rollout(Pendulum(), policy, 3, episodes=3)
    with pytest.warns(UserWarning, match=r"cannot take all actions of Pendulum.*Write bounds=\(-2, 2\)"):
        program()
    program()


def test_actions_beyond_the_bounds_are_clipped_as_gymnasiums() -> None:
    def always(observation: Tensor) -> dist.Distribution:
        return dist.Delta(torch.full((len(observation), 1), 3.0)).to_event(1)

    with GymnasiumEnv("MountainCarContinuous-v0") as env:
        theirs = ppgrad.rollout(env, always, 10, episodes=2)().returns
    ours = ppgrad.rollout(MountainCarContinuous(), always, 10, episodes=2)().returns
    torch.testing.assert_close(ours, torch.full((2,), -1.0))
    torch.testing.assert_close(theirs, ours)


def test_policies_that_fit() -> None:
    for env, policy in (
        (CartPole(), lambda x: dist.Bernoulli(logits=x[:, 0])),
        (CartPole(), lambda x: dist.Categorical(logits=torch.zeros(2))),
        (Pendulum(), lambda x: dist.Beta(x[:, :1].exp(), 1.0).to_event(1)),
        (Pendulum(), lambda x: dist.MultivariateNormal(x[:, :1], torch.eye(1))),
    ):
        assert ppgrad.rollout(env, policy, 2, episodes=3)().lengths.tolist() == [2.0, 2.0, 2.0]


class Breaks(Environment):
    """Something turns NaN in the third step."""

    action_space = Box((1,))

    def __init__(self, what: str):
        self.what = what

    def initial(self, episodes: int) -> Tensor:
        return torch.zeros(episodes, 1)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        return state + 1

    def observation(self, state: Tensor) -> Tensor:
        return torch.where((state >= 3) & (self.what == "observation"), torch.nan, state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        bad = (next_state >= 3) & (self.what == "reward")
        return torch.where(bad, torch.nan, action)[..., 0]


@pytest.mark.parametrize(
    ("what", "words"),
    [("reward", ["reward", "step 2", "'r_2'", "nan"]), ("observation", ["observation", "step 2", "'a_3'", "nan"])],
)
def test_nan_is_named(what: str, words: list[str]) -> None:
    policy = nn.Linear(1, 1)
    program = ppgrad.rollout(Breaks(what), lambda x: dist.Normal(policy(x), 1.0).to_event(1), 5, episodes=2)
    objective = ExpectedReturn(Pathwise())
    for call in (
        program,
        lambda: ppgrad.gradient(objective, program, seed=0),
        lambda: ppgrad.measure(objective, program, replicates=4),
        lambda: objective.loss(program, None),
    ):
        with pytest.raises(NonFinite) as caught:
            call()
        assert all(word in str(caught.value) for word in words), str(caught.value)
        assert "\n" not in str(caught.value)


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
