"""Bounded actions: the density, the raw action kept beside, entropy; and Beta over an interval."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import AffineTransform, TanhTransform

import ppgrad
from ppgrad import ExpectedReturn, GaussianMixture, Pathwise, ScaledBeta, ScoreFunction, Squashed

LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 5.0])


def squashed(loc: float = 0.3, scale: float = 0.8, dtype: torch.dtype = torch.float32) -> Squashed:
    base = dist.Normal(torch.full((2,), loc, dtype=dtype), scale).to_event(1)
    return Squashed(base, LOW.to(dtype), HIGH.to(dtype))


def test_density_is_that_of_the_transformed_distribution() -> None:
    fn = squashed(dtype=torch.double)
    scale = (fn.high - fn.low) / 2
    reference = dist.TransformedDistribution(
        fn.base_dist, [TanhTransform(), AffineTransform(fn.low + scale, scale, event_dim=1)]
    )
    actions = fn.sample((100,)) + 0.0
    torch.testing.assert_close(squashed(dtype=torch.double).log_prob(actions), reference.log_prob(actions))
    assert bool(((actions > fn.low) & (actions < fn.high)).all())


@pytest.mark.parametrize("kind", ["normal", "mixture", "beta"])
def test_density_integrates_to_one(kind: str) -> None:
    low, high = torch.tensor([-3.0], dtype=torch.double), torch.tensor([1.0], dtype=torch.double)
    normal = dist.Normal(torch.tensor([0.3], dtype=torch.double), 0.8).to_event(1)
    fns = {
        "normal": Squashed(normal, low, high),
        "beta": ScaledBeta(low * 0 + 1.5, low * 0 + 3.0, low, high),
        "mixture": Squashed(
            GaussianMixture(
                dist.Categorical(logits=torch.zeros(2, dtype=torch.double)),
                dist.Normal(torch.tensor([[-0.5], [0.7]], dtype=torch.double), 0.6).to_event(1),
            ),
            low,
            high,
        ),
    }
    grid = torch.linspace(-3, 1, 200_001, dtype=torch.double)[1:-1, None]
    density = fns[kind].log_prob(grid).exp()
    torch.testing.assert_close(
        torch.trapezoid(density, grid[:, 0]), torch.tensor(1.0, dtype=torch.double), rtol=1e-6, atol=1e-6
    )


def test_a_saturated_action_keeps_its_density() -> None:
    """tanh(20) is 1 in single precision: the raw action is remembered, detached or not."""
    fn = squashed(loc=20.0, scale=1.0)
    action = fn.sample((1000,))
    assert bool((action == HIGH).all())
    raw = fn.raw(action.detach().clone())
    assert bool((raw > 14).all())
    expected = (
        fn.base_dist.log_prob(raw.double())
        + (2 * raw.double() - math.log(4)).sum(-1)
        - torch.log((HIGH - LOW) / 2).sum()
    )
    torch.testing.assert_close(fn.log_prob(action.clone()).double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fn.log_prob_of_raw(raw), fn.log_prob(action))
    stranger = squashed(loc=20.0, scale=1.0)
    assert bool(torch.isfinite(stranger.log_prob(action)).all())  # the inverse stops before the bound
    torch.testing.assert_close(stranger.log_prob_of_raw(raw), fn.log_prob(action))


def test_raw_is_the_inverse_of_squash() -> None:
    raw = torch.linspace(-3, 3, 50)[:, None].expand(-1, 2)
    torch.testing.assert_close(squashed().raw(squashed().squash(raw)), raw, rtol=1e-3, atol=1e-3)


def test_an_older_action_is_not_taken_for_the_latest() -> None:
    fn = squashed()
    older = fn.sample((20,))
    raw = fn.raw(older)
    fn.sample((20,))
    torch.testing.assert_close(fn.raw(older), raw, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("detached", [False, True])
def test_gradients_of_the_density(detached: bool) -> None:
    """With the action's graph the total derivative; detached the score: as without any memory."""
    loc = torch.tensor([0.2, -0.4], dtype=torch.double, requires_grad=True)
    fn = Squashed(
        dist.Normal(loc, 0.5).to_event(1), -torch.ones(2, dtype=torch.double), torch.ones(2, dtype=torch.double)
    )
    action = fn.rsample()
    raw = fn.raw(action).detach()
    found = torch.autograd.grad(fn.log_prob(action.detach() if detached else action), loc)[0]
    score = (raw - loc.detach()) / 0.25
    total = 2 * torch.tanh(raw)  # the Gaussian part does not move with the mean, −log slope does
    torch.testing.assert_close(found, score if detached else total)


def test_the_gradient_with_respect_to_an_action() -> None:
    fn = squashed(dtype=torch.double)
    action = fn.sample().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: squashed(dtype=torch.double).log_prob(a), (action,))
    near = torch.autograd.grad(fn.log_prob(action), action)[0]
    torch.testing.assert_close(near, torch.autograd.grad(squashed(dtype=torch.double).log_prob(action), action)[0])


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("loc", [0.0, 2.0])
def test_entropy_is_the_integral(loc: float, scale: float) -> None:
    fn = squashed(loc, scale, torch.double)
    raw = torch.linspace(loc - 12 * scale, loc + 12 * scale, 100_001, dtype=torch.double)
    density = dist.Normal(loc, scale).log_prob(raw).exp()
    slope = math.log(2) * 2 - 2 * raw - 2 * torch.nn.functional.softplus(-2 * raw)
    exact = fn.base_dist.entropy() + torch.log((fn.high - fn.low) / 2).sum() + 2 * torch.trapezoid(density * slope, raw)
    torch.testing.assert_close(fn.entropy(), exact, rtol=0, atol=1e-5)


def test_entropy_of_a_full_covariance() -> None:
    """Only the variances of the raw actions enter what squashing adds."""
    factor = torch.tensor([[0.5, 0.0], [0.4, 0.3]])
    full = Squashed(dist.MultivariateNormal(torch.zeros(2), scale_tril=factor), -torch.ones(2), torch.ones(2))
    marginal = Squashed(dist.Normal(torch.zeros(2), torch.full((2,), 0.5)).to_event(1), -torch.ones(2), torch.ones(2))
    torch.testing.assert_close(
        full.entropy() - full.base_dist.entropy(), marginal.entropy() - marginal.base_dist.entropy()
    )


def test_what_was_drawn_under_a_vmap_that_has_ended_is_forgotten() -> None:
    fn = squashed()
    drawn = torch.vmap(lambda _: fn.sample(), randomness="different")(torch.zeros(3))
    torch.testing.assert_close(fn.log_prob(drawn[0]), squashed().log_prob(drawn[0]))


def test_rounding_does_not_step_over_a_bound() -> None:
    """Bounds of every kind, actions at both of them: each draw is in the support."""
    low = torch.randn(5000) * 10
    high = low + torch.rand(5000) * 10 + 1e-3
    raw = torch.where(torch.rand(5000) < 0.5, -30.0, 30.0)
    fn = Squashed(dist.Normal(raw, 1.0).to_event(1), low, high)
    assert bool(torch.isfinite(fn.log_prob(fn.sample())))
    beta = ScaledBeta(torch.where(raw > 0, 1e7, 1.0), torch.where(raw > 0, 1.0, 1e7), low, high)
    assert bool(torch.isfinite(beta.log_prob(beta.sample())))


def test_mode_is_the_squashed_mode() -> None:
    torch.testing.assert_close(squashed().mode, squashed().squash(torch.tensor([0.3, 0.3])))


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()], ids=["pathwise", "score"])
@pytest.mark.parametrize("num_particles", [1, 3])
def test_saturated_actions_in_a_program(estimator: ppgrad.Estimator, num_particles: int) -> None:
    """The raw action is found through plates, vmap and detaching: the score does not lose it."""
    policy = ppgrad.GaussianPolicy(1, 1, covariance="constant", squash=True, hidden=(), scale=1.0)
    policy.mean[0].bias.data.fill_(12.0)

    def program(policy: ppgrad.Policy) -> None:
        with pyro.plate("n", 2000):
            ppgrad.reward("r", 1.0 + ppgrad.policy("a", policy(torch.zeros(1))).sum(-1))

    found = ppgrad.gradient(ExpectedReturn(estimator, num_particles=num_particles), program, args=(policy,), seed=0)
    # The score Σ (u − 12) · 2 has variance 8000; without the raw action each term is about (9 − 12) · 2.
    bound = 6 * math.sqrt(8000.0) if estimator == ScoreFunction() else 1e-3
    assert abs(found["policy.mean.0.bias"]) < bound


def test_entropy_bonus_of_saturated_actions() -> None:
    """Pathwise through −log π: the entropy falls by 2 for each unit of the mean, as log |da/du| does."""
    policy = ppgrad.GaussianPolicy(1, 1, covariance="constant", squash=True, hidden=())
    policy.mean[0].bias.data.fill_(12.0)

    def program(policy: ppgrad.Policy) -> None:
        with pyro.plate("n", 10):
            ppgrad.reward("r", 0.0 * ppgrad.policy("a", policy(torch.zeros(1))).sum(-1))

    for num_particles in (1, 3):
        objective = ppgrad.MaxEntReturn(Pathwise(), temperature=1.0, num_particles=num_particles)
        found = ppgrad.gradient(objective, program, args=(policy,), seed=0)
        torch.testing.assert_close(found["policy.mean.0.bias"], torch.tensor([-20.0]))


def test_one_bound_for_all_actions() -> None:
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    raw = torch.tensor([0.3, -0.2])
    both = Squashed(base, torch.full((2,), -2.0), torch.full((2,), 2.0))
    torch.testing.assert_close(Squashed(base, -2.0, 2.0).log_prob_of_raw(raw), both.log_prob_of_raw(raw))
    torch.testing.assert_close(Squashed(base, -2.0, 2.0).entropy(), both.entropy())
    pair = torch.tensor([2.0, 3.0])
    torch.testing.assert_close(
        ScaledBeta(pair, pair, -2.0, 2.0).log_prob(raw),
        ScaledBeta(pair, pair, torch.full((2,), -2.0), torch.full((2,), 2.0)).log_prob(raw),
    )


def test_raw_action_of_a_policy_site() -> None:
    policy = ppgrad.GaussianPolicy(3, 2, squash=True, bounds=([-1.0, -2.0], 2.0))
    kept = {}

    def program() -> None:
        fn = policy(torch.zeros(3))
        with pyro.plate("n", 4):
            kept["action"] = ppgrad.policy("a", fn)
        kept["raw"] = fn.raw(kept["action"])
        kept["fn"] = fn

    program()
    assert kept["raw"].shape == (4, 2)
    assert torch.equal(kept["fn"].squash(kept["raw"]), kept["action"])


def test_scaled_beta_is_beta() -> None:
    first, second = torch.tensor([1.5, 3.0]), torch.tensor([2.0, 1.2])
    fn = ScaledBeta(first, second, LOW, HIGH)
    actions = fn.sample((100_000,))
    unit = dist.Beta(first, second)
    width = HIGH - LOW
    expected = unit.log_prob((actions - LOW) / width).sum(-1) - torch.log(width).sum()
    torch.testing.assert_close(fn.log_prob(actions), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fn.mean, LOW + width * unit.mean)
    torch.testing.assert_close(fn.variance, width**2 * unit.variance)
    torch.testing.assert_close(fn.entropy(), unit.entropy().sum() + torch.log(width).sum())
    torch.testing.assert_close(fn.mode[0], LOW[0] + width[0] * 0.5 / 1.5)
    error = (fn.variance / 100_000).sqrt()
    assert bool(((actions.mean(0) - fn.mean).abs() < 6 * error).all())
    assert bool(torch.isfinite(fn.log_prob(LOW)) & torch.isfinite(fn.log_prob(HIGH)))


@pytest.mark.parametrize("action", [[3.0, 1.0], [0.0, -0.1], [float("nan"), 1.0]])
@pytest.mark.parametrize("kind", ["squashed", "beta"])
def test_an_action_outside_of_the_bounds_is_an_error(kind: str, action: list[float]) -> None:
    fn = squashed() if kind == "squashed" else ScaledBeta(torch.ones(2) + 1, torch.ones(2) + 1, LOW, HIGH)
    with pytest.raises(ValueError, match="support"):
        fn.log_prob(torch.tensor(action))


def test_divergences_leave_the_bounds_out() -> None:
    p, q = squashed(0.1), squashed(0.5)
    torch.testing.assert_close(
        torch.distributions.kl_divergence(p, q), torch.distributions.kl_divergence(p.base_dist, q.base_dist)
    )
    other = Squashed(q.base_dist, LOW - 1, HIGH)
    with pytest.raises(NotImplementedError):
        torch.distributions.kl_divergence(p, other)
