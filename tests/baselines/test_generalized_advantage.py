"""Generalized advantages: their limits, their bias, their critic."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import (
    Critic,
    ExpectedReturn,
    GeneralizedAdvantage,
    InvalidAssignment,
    InvalidInput,
    ScoreFunction,
    compare,
    exact_gradient,
    measure,
)
from ppgrad.testing.problems import parameters

HORIZON, DISCOUNT = 4, 0.8


def walk() -> None:
    """s_{t+1} = s_t + b_t, r_t = −(s_{t+1} − 1)²; the context is (s_t, t)."""
    p = parameters({"logit": 0.4, "slope": -0.6})
    with pyro.plate("n", 3):
        state = torch.zeros(3)
        for t in pyro.markov(range(HORIZON)):
            context = torch.stack([state, torch.full((3,), float(t))], -1)
            b = ppgrad.policy(f"b_{t}", dist.Bernoulli(logits=p["logit"] + p["slope"] * state), context=context)
            state = state + b
            ppgrad.reward(f"r_{t}", -((state - 1) ** 2))


class ExactValue(torch.nn.Module):
    """V(s, t), by going through everything that can happen."""

    def forward(self, context: Tensor) -> Tensor:
        state, time = context[..., 0], context[..., 1]
        values = torch.zeros_like(state)
        for t in range(HORIZON):
            values = torch.where(time == t, self._value(state, t), values)
        return values

    def _value(self, state: Tensor, t: int) -> Tensor:
        if t == HORIZON:
            return torch.zeros_like(state)
        p = torch.sigmoid(0.4 - 0.6 * state)
        stay, move = (-((after - 1) ** 2) + DISCOUNT * self._value(after, t + 1) for after in (state, state + 1))
        return (1 - p) * stay + p * move


class Wrong(torch.nn.Module):
    def forward(self, context: Tensor) -> Tensor:
        return 2.0 * context[..., 0] - 1


def objective(baseline: ppgrad.Baseline) -> ExpectedReturn:
    return ExpectedReturn(ScoreFunction(baseline), discount=DISCOUNT)


def test_without_decay_it_is_the_critic() -> None:
    for module in (Wrong(), ExactValue()):
        one = ppgrad.gradient(objective(GeneralizedAdvantage(Critic(module), decay=1.0)), walk, seed=0)
        many = ppgrad.gradient(objective(GeneralizedAdvantage(Critic(module), steps=HORIZON)), walk, seed=0)
        critic = ppgrad.gradient(objective(Critic(module)), walk, seed=0)
        for name in critic:
            torch.testing.assert_close(one[name], critic[name])
            torch.testing.assert_close(many[name], critic[name])


@pytest.mark.parametrize("options", [{"decay": 0.0}, {"decay": 0.5}, {"steps": 1}, {"steps": 2}], ids=str)
def test_with_the_exact_value_it_is_unbiased_and_less_noisy(options: dict) -> None:
    reference = exact_gradient(ExpectedReturn(discount=DISCOUNT), walk)
    exact = objective(GeneralizedAdvantage(Critic(ExactValue()), **options))
    result = measure(exact, walk, replicates=40_000, reference=reference)
    critic = measure(objective(Critic(ExactValue())), walk, replicates=40_000, reference=reference)
    for name in reference:
        assert float(result.p_value[name]) > 1e-7
        assert float(result.variance[name]) < float(critic.variance[name])


@pytest.mark.parametrize("options", [{"decay": 0.5}, {"steps": 1}, {"decay": 1.0, "normalize": True}], ids=str)
def test_a_wrong_critic_biases_it_and_it_says_so(options: dict) -> None:
    reference = exact_gradient(ExpectedReturn(discount=DISCOUNT), walk)
    biased = objective(GeneralizedAdvantage(Critic(Wrong()), **options))
    result = measure(biased, walk, replicates=40_000, reference=reference)
    assert min(float(p) for p in result.p_value.values()) < 1e-7
    comparison = compare({"score": objective(Critic(Wrong())), "biased": biased}, walk, replicates=200)
    assert list(comparison.totals()["biased"]) == ["", "biased"]


def test_the_critic_learns_the_value() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    trained = ExpectedReturn(
        ScoreFunction(GeneralizedAdvantage(Critic(module), decay=0.9)), discount=DISCOUNT, num_particles=64
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        trained.differentiable_loss(walk, None).backward()
        optimizer.step()
    for state, t in [(0.0, 0), (1.0, 1), (2.0, 2), (0.0, 3)]:
        context = torch.tensor([state, float(t)])
        assert float(module(context).detach()) == pytest.approx(float(ExactValue()(context)), abs=0.25)


class LastNumber(torch.nn.Module):
    def forward(self, context: Tensor) -> Tensor:
        return 10 - context[..., -1].abs()


def test_normalizing_leaves_out_what_comes_after_the_end_of_an_episode() -> None:
    torch.manual_seed(0)
    policy = ppgrad.CategoricalPolicy(4, 2)
    baseline = GeneralizedAdvantage(Critic(LastNumber()), decay=0.9, normalize=True)
    found = []
    for horizon in (100, 200):
        program = ppgrad.rollout(ppgrad.envs.CartPole(), policy, horizon, episodes=6)
        torch.manual_seed(1)
        assert int(program().lengths.max()) < 100
        found.append(ppgrad.gradient(ExpectedReturn(ScoreFunction(baseline)), program, seed=1))
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name])
        assert gradient.any()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidAssignment, match=r"GeneralizedAdvantage\(Critic\(module\)\)"):
        GeneralizedAdvantage(torch.nn.Linear(2, 1))
    with pytest.raises(InvalidInput, match="decay lies in"):
        GeneralizedAdvantage(Critic(Wrong()), decay=1.5)
    with pytest.raises(InvalidInput, match="one of the two"):
        GeneralizedAdvantage(Critic(Wrong()), decay=0.5, steps=3)


@pytest.mark.parametrize("baseline", [Critic(LastNumber()), GeneralizedAdvantage(Critic(LastNumber()))], ids=repr)
def test_a_discount_that_vanishes_is_no_trouble(baseline: ppgrad.Baseline) -> None:
    program = ppgrad.rollout(ppgrad.envs.CartPole(), ppgrad.CategoricalPolicy(4, 2), 200, episodes=2)
    found = ppgrad.gradient(ExpectedReturn(ScoreFunction(baseline), discount=0.5), program, seed=0)
    assert all(gradient.isfinite().all() for gradient in found.values())
