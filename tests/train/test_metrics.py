"""The metrics of a step: their formulas, and where they are left out."""

from __future__ import annotations

import functools
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    Critic,
    ExpectedReturn,
    GaussianPolicy,
    GeneralizedAdvantage,
    InvalidInput,
    InvalidProgram,
    InverseVariance,
    LeaveOneOut,
    NaturalGradient,
    Pathwise,
    ScoreFunction,
    Unsupported,
)
from ppgrad.analysis import pareto_khat
from ppgrad.train.noise import WINDOW, GradientNoise

fit = functools.partial(ppgrad.fit, progress=False)

STATES = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
SCALE = torch.tensor([0.5, 1.0, 1.5, 2.0])


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, state: Tensor) -> dist.Normal:
        return dist.Normal(self.linear(state).squeeze(-1), SCALE)


def episode(policy: Policy) -> None:
    with pyro.plate("n", 4):
        start = pyro.sample("start", dist.Normal(torch.zeros(4), 1.0))
        fn = policy(STATES)
        action = ppgrad.policy("a", fn, context=STATES, infer={"active": torch.tensor([True, True, True, False])})
        earned = -((action - 3) ** 2) + start
        ppgrad.reward("r", earned * torch.tensor([1.0, 1.0, 1.0, 0.0]))
        policy.seen.append((fn.log_prob(action).detach(), earned.detach()))


def step(estimator: Any, steps: int = 1, **options: Any) -> tuple[dict[str, float], Tensor, Tensor]:
    """The last step's metrics; log densities and rewards of its active draws."""
    policy = Policy()
    history = fit(ExpectedReturn(estimator), episode, args=(policy,), steps=steps, learning_rate=0.0, **options)
    log_prob, earned = policy.seen[-1]
    return history.metrics.iloc[-1].dropna().to_dict(), log_prob[:3], earned[:3]


def test_policy_loss_and_entropy_loss() -> None:
    metrics, log_prob, earned = step(ScoreFunction())
    assert metrics["train/policy_loss"] == pytest.approx(float((log_prob * -earned).mean()), rel=1e-5)
    assert metrics["train/entropy_loss"] == pytest.approx(float(log_prob.mean()), rel=1e-5)
    assert metrics["train/std"] == pytest.approx(float(SCALE.mean()))
    assert metrics["train/n_updates"] == metrics["time/iterations"] == 1
    assert not {"train/value_loss", "train/explained_variance", "grad/alpha", "grad/khat"} & metrics.keys()
    metrics, log_prob, _ = step(Pathwise())
    assert not {"train/policy_loss", "train/entropy_loss"} & metrics.keys()
    assert "train/std" in metrics


@pytest.mark.parametrize("decay", [None, 0.9])
def test_value_loss_and_explained_variance(decay: float | None) -> None:
    network = nn.Linear(1, 1)
    critic: Any = Critic(network)
    estimator = ScoreFunction(critic if decay is None else GeneralizedAdvantage(critic, decay))
    metrics, log_prob, earned = step(estimator)
    with torch.no_grad():
        value = network(STATES[:3]).squeeze(-1)
    error = earned - value
    assert metrics["train/value_loss"] == pytest.approx(float(error.square().mean()), rel=1e-4)
    explained = 1 - error.var(correction=0) / earned.var(correction=0)
    assert metrics["train/explained_variance"] == pytest.approx(float(explained), rel=1e-3)
    assert metrics["train/policy_loss"] == pytest.approx(float((log_prob * -error).mean()), rel=1e-4)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("squash", [True, False])
@pytest.mark.parametrize("covariance", ["diagonal", "full", "low_rank"])
def test_std_of_any_gaussian_policy(covariance: Any, squash: bool, vectorize: bool) -> None:
    policy = GaussianPolicy(1, 2, covariance=covariance, squash=squash, scale=0.7, hidden=())

    def run() -> None:
        with pyro.plate("n", 4):
            ppgrad.cost("f", ppgrad.policy("a", policy(STATES)).sum(-1))

    objective = ExpectedReturn(num_particles=3, vectorize_particles=vectorize)
    metrics = fit(objective, run, steps=1, learning_rate=0.0).metrics
    with torch.no_grad():
        fn = policy(STATES)
    expected = (fn.base_dist if squash else fn).stddev.mean()
    assert metrics["train/std"][1] == pytest.approx(float(expected), rel=1e-5)


def test_alpha_is_the_weight_that_is_used() -> None:
    policy, objective = Policy(), ExpectedReturn(InverseVariance())
    metrics = fit(objective, episode, args=(policy,), steps=2).metrics
    weights = torch.stack([objective.memory[name]["alpha"] for name in objective.memory])
    assert metrics["grad/alpha"][2] == pytest.approx(float(weights.mean()))


def test_khat_of_the_latest_steps() -> None:
    noise, generator = GradientNoise(), torch.Generator().manual_seed(0)
    gradients = torch.randn(WINDOW + 50, 3, generator=generator)
    for place, gradient in enumerate(gradients):
        noise.update(gradient)
        assert (noise.khat is None) == (place < WINDOW // 2)
    assert noise.khat == pytest.approx(pareto_khat(gradients.diff(dim=0).norm(dim=1)[-WINDOW:]).khat, rel=1e-3)


def test_a_program_without_policy_sites_or_critic_has_none_of_them() -> None:
    def run() -> None:
        ppgrad.cost("f", pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0)) ** 2)

    columns = fit(ExpectedReturn(), run, steps=2).metrics.columns
    names = ("policy_loss", "entropy_loss", "std", "value_loss", "explained_variance")
    assert not {f"train/{name}" for name in names} & set(columns)


def test_compiled_steps_have_those_that_need_no_sites() -> None:
    objective = ExpectedReturn(ScoreFunction(LeaveOneOut("n")), compile="eager")

    def run() -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("n", 4):
            ppgrad.cost("f", ppgrad.policy("a", dist.Normal(loc, 1.0).expand([4])) ** 2)

    columns = set(fit(objective, run, steps=2).metrics.columns)
    assert {"train/n_updates", "time/iterations", "grad/norm"} <= columns
    assert not {"train/policy_loss", "train/entropy_loss", "train/std"} & columns


def with_critic() -> tuple[nn.Module, nn.Module, Any, Any]:
    torch.manual_seed(0)
    policy, critic = GaussianPolicy(1, 1, hidden=()), nn.Linear(1, 1)

    def run() -> None:
        with pyro.plate("n", 4):
            action = ppgrad.policy("a", policy(STATES), context=STATES)
            ppgrad.cost("f", (action.squeeze(-1) - 3) ** 2)

    return policy, critic, run, ExpectedReturn(ScoreFunction(Critic(critic)), num_particles=16)


def test_a_critic_beside_the_natural_gradient(tmp_path: Any) -> None:
    adam = functools.partial(torch.optim.Adam, lr=0.5)

    def train(steps: int, **options: Any) -> tuple[list[Tensor], Any]:
        pyro.clear_param_store()
        policy, critic, run, objective = with_critic()
        history = fit(
            objective, run, steps=steps, optimizer=NaturalGradient(policy, STATES), critic_optimizer=adam, **options
        )
        return [leaf.detach() for module in (policy, critic) for leaf in module.parameters()], history.metrics

    whole, metrics = train(40)
    assert metrics["train/value_loss"].tail(5).mean() < metrics["train/value_loss"].head(5).mean()
    assert metrics["rollout/ep_rew_mean"].tail(5).mean() > metrics["rollout/ep_rew_mean"].head(5).mean()
    train(15, checkpoint=tmp_path / "run.pt")
    rest, _ = train(40, checkpoint=tmp_path / "run.pt", resume=True)
    assert all(torch.equal(one, other) for one, other in zip(whole, rest, strict=True))
    adam = functools.partial(torch.optim.Adam, lr=0.1)
    with pytest.raises(InvalidInput, match=r"critic_learning_rate=0\.5, and this one critic_learning_rate=0\.1"):
        train(50, checkpoint=tmp_path / "run.pt", resume=True)


def test_a_critic_with_an_optimizer_of_its_own() -> None:
    _, critic, run, objective = with_critic()
    before = critic.weight.detach().clone()
    fit(objective, run, steps=1, learning_rate=0.0, critic_optimizer=functools.partial(torch.optim.SGD, lr=0.01))
    assert not torch.equal(critic.weight, before)


def test_an_error_of_the_natural_gradient_hides_internal_names() -> None:
    policy, _, run, objective = with_critic()
    svi = pyro.infer.SVI(run, None, NaturalGradient(policy, STATES), loss=objective)
    with pytest.raises(InvalidProgram, match=r"critic's parameter '(weight|bias)' has a gradient") as error:
        svi.step()
    assert "$" not in str(error.value)


def test_a_deterministic_evaluation_takes_the_mode() -> None:
    def run() -> None:
        loc = pyro.param("loc", torch.tensor(1.0))
        with pyro.plate("n", 4):
            start = pyro.sample("start", dist.Normal(torch.zeros(4), 1.0))
            action = ppgrad.policy("a", dist.Normal(loc, 1.0).expand([4]))
            ppgrad.reward("r", action)
            drawn.append((start.detach(), action.detach()))

    drawn: list[Any] = []
    options = {"steps": 1, "learning_rate": 0.0, "evaluate_every": 1, "evaluation_episodes": 4}
    history = fit(ExpectedReturn(), run, evaluation_deterministic=True, **options)
    start, action = drawn[-1]
    assert history.final["eval/mean_reward"] == 1.0
    assert (action == 1).all()
    assert start.unique().numel() == 4
    assert fit(ExpectedReturn(), run, **options).final["eval/mean_reward"] != 1.0

    def mixed() -> None:
        weights = dist.Categorical(pyro.param("weights", torch.ones(2) / 2))
        fn = dist.MixtureSameFamily(weights, dist.Normal(torch.zeros(2), 1.0))
        ppgrad.reward("r", ppgrad.policy("a", fn))

    with pytest.raises(Unsupported, match=r"'a'.*MixtureSameFamily has no mode"):
        fit(ExpectedReturn(ScoreFunction()), mixed, evaluation_deterministic=True, **options)
