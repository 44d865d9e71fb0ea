"""The natural gradient: what it solves, what damping and the trust region do, with torch and with SVI."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

import ppgrad
from ppgrad import (
    CategoricalPolicy,
    ExpectedReturn,
    GaussianPolicy,
    InvalidInput,
    InvalidProgram,
    LeaveOneOut,
    MixturePolicy,
    NaturalGradient,
    NonFinite,
    ScoreFunction,
)
from ppgrad.train.conjugate_gradients import conjugate_gradients


def positive_definite(n: int) -> Tensor:
    root = torch.randn(n, n, dtype=torch.double)
    return root @ root.T + 0.1 * torch.eye(n, dtype=torch.double)


def test_conjugate_gradients_solve_in_as_many_steps_as_dimensions() -> None:
    matrix, b = positive_definite(8), torch.randn(8, dtype=torch.double)
    solved = conjugate_gradients(lambda v: matrix @ v, b, iterations=40, tolerance=1e-12)
    torch.testing.assert_close(solved.x, torch.linalg.solve(matrix, b), rtol=1e-6, atol=1e-6)
    two_eigenvalues = torch.diag(torch.tensor([1.0, 1.0, 5.0, 5.0, 5.0], dtype=torch.double))
    assert conjugate_gradients(lambda v: two_eigenvalues @ v, b[:5], iterations=40).iterations == 2
    assert conjugate_gradients(lambda v: matrix @ v, b, iterations=3).iterations == 3


def test_conjugate_gradients_stop_without_curvature() -> None:
    b = torch.randn(5)
    assert torch.equal(conjugate_gradients(lambda v: 0 * v, b, 10).x, torch.zeros(5))
    assert torch.equal(conjugate_gradients(lambda v: v, 0 * b, 10).x, torch.zeros(5))


def with_gradients(policy: torch.nn.Module) -> Tensor:
    for parameter in policy.parameters():
        parameter.grad = torch.randn_like(parameter)
    return torch.cat([p.grad.reshape(-1) for p in policy.parameters()])


def flat(policy: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in policy.parameters()])


POLICIES: dict[str, Callable[[], ppgrad.Policy]] = {
    "full": lambda: GaussianPolicy(3, 2, covariance="full", hidden=(4,)),
    "free": lambda: GaussianPolicy(3, 2, state_dependent=False, hidden=()),
    "squashed": lambda: GaussianPolicy(3, 2, covariance="low_rank", squash=True, hidden=()),
    "categorical": lambda: CategoricalPolicy(3, 4, hidden=()),
    "beta": lambda: ppgrad.BetaPolicy(3, 2, hidden=()),
}
every_policy = pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES.keys())


@every_policy
def test_a_step_solves_the_damped_system(make: Callable[[], ppgrad.Policy]) -> None:
    """θ moves by −lr (F + λ I)⁻¹ g, F from `fisher`, up to what the residual allows: ‖error‖ ≤ lr ‖residual‖ / λ."""
    policy = make().double()
    features = torch.randn(20, 3, dtype=torch.double)
    gradient, before, matrix = with_gradients(policy), flat(policy), ppgrad.fisher(policy, features)
    optimizer = NaturalGradient(policy, features, lr=1e-3, damping=0.1, trust_region=None, iterations=200)
    optimizer.step()
    expected = -1e-3 * torch.linalg.solve(matrix + 0.1 * torch.eye(len(matrix), dtype=torch.double), gradient)
    moved, latest = flat(policy) - before, optimizer.latest
    assert latest is not None
    assert latest.fraction == 1.0
    assert latest.residual < 1e-6
    assert (moved - expected).norm() <= 1e-3 * (latest.residual + 1e-11) * gradient.norm() / 0.1


def test_one_step_solves_a_quadratic() -> None:
    """The expected cost E|a − t|² of N(μ, 1) has the Hessian 2 F: half a natural gradient is the answer."""
    policy = GaussianPolicy(1, 3, covariance="constant", hidden=())
    target = torch.tensor([1.0, -2.0, 0.5])
    features = torch.ones(1, 1)
    loss = (policy(features).mean - target).square().sum()
    loss.backward()
    NaturalGradient(policy, features, lr=0.5, damping=0.0, trust_region=None).step()
    torch.testing.assert_close(policy(features).mean[0], target, rtol=1e-4, atol=1e-4)


def test_it_does_not_depend_on_the_parameters_chosen() -> None:
    """σ or log σ: to first order a step without damping is the same change of the distribution."""

    class Scale(torch.nn.Module):
        def __init__(self, value: float, to_scale: Callable[[Tensor], Tensor]):
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(value, dtype=torch.double))
            self.to_scale = to_scale

        def forward(self) -> dist.TorchDistribution:
            return dist.Normal(torch.zeros((), dtype=torch.double), self.to_scale(self.value))

    moved = []
    for module in (Scale(0.5, lambda s: s), Scale(0.5, lambda s: s**3 * 4), Scale(math.log(0.5), torch.exp)):
        (module().scale - 2).square().backward()
        NaturalGradient(module, lr=1e-5, damping=0.0, trust_region=None).step()
        moved.append(module().scale.detach() - 0.5)
    torch.testing.assert_close(moved[0].expand(2), torch.stack(moved[1:]), rtol=1e-3, atol=0)


@every_policy
@pytest.mark.parametrize("radius", [1e-4, 1e-2, 0.3])
def test_the_trust_region_holds(make: Callable[[], ppgrad.Policy], radius: float) -> None:
    """However long the step, KL(before ‖ after) is at most δ, and not needlessly small."""
    policy = make().double()
    features = torch.randn(20, 3, dtype=torch.double)
    with_gradients(policy)
    old = copy.deepcopy(policy)
    optimizer = NaturalGradient(policy, features, lr=1e4, damping=1e-3, trust_region=radius)
    optimizer.step()
    divergence = torch.distributions.kl_divergence(old(features), policy(features)).mean()
    assert 0.05 * radius < divergence <= radius * (1 + 1e-9)
    assert optimizer.latest is not None
    torch.testing.assert_close(torch.tensor(optimizer.latest.divergence, dtype=torch.double), divergence.detach())
    assert optimizer.latest.fraction < 1


def test_a_step_inside_of_the_trust_region_is_left_alone() -> None:
    policy = GaussianPolicy(3, 2, hidden=())
    other = copy.deepcopy(policy)
    features = torch.randn(5, 3)
    with_gradients(policy)
    for leaf, twin in zip(policy.parameters(), other.parameters(), strict=True):
        twin.grad = leaf.grad
    NaturalGradient(policy, features, lr=1e-3, trust_region=0.5).step()
    NaturalGradient(other, features, lr=1e-3, trust_region=None).step()
    assert torch.equal(flat(policy), flat(other))


def test_much_damping_is_the_plain_gradient() -> None:
    policy = GaussianPolicy(3, 2, hidden=()).double()
    gradient, before = with_gradients(policy), flat(policy)
    NaturalGradient(policy, torch.randn(5, 3), lr=1.0, damping=1e6, trust_region=None).step()
    torch.testing.assert_close(flat(policy) - before, -gradient / 1e6, rtol=1e-3, atol=1e-12)


def test_a_mixture_takes_drawn_actions() -> None:
    """Without a closed form the estimate of the divergence is held to the trust region."""
    policy = MixturePolicy(3, 2, hidden=())
    before = flat(policy)
    with_gradients(policy)
    optimizer = NaturalGradient(policy, torch.randn(50, 3), num_particles=5, trust_region=0.01, lr=10.0)
    optimizer.step()
    assert optimizer.latest is not None
    assert 0 < optimizer.latest.divergence <= 0.01
    assert not torch.equal(flat(policy), before)


def test_nothing_else_moves() -> None:
    policy = GaussianPolicy(3, 2, covariance="constant")
    features = torch.randn(5, 3)
    with_gradients(policy)
    state, buffers, gradient = torch.get_rng_state(), [b.clone() for b in policy.buffers()], policy.mean[0].weight.grad
    NaturalGradient(policy, features).step()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, buffers, policy.buffers()))
    assert policy.mean[0].weight.grad is gradient
    before = flat(policy)
    for parameter in policy.parameters():
        parameter.grad = None
    NaturalGradient(policy, features).step()
    assert torch.equal(flat(policy), before)


def test_torchs_schedulers_closures_and_states() -> None:
    policy = GaussianPolicy(3, 2)
    features = torch.randn(5, 3)
    optimizer = NaturalGradient(policy, features, lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (policy(features).mean - 1).square().mean()
        loss.backward()
        return loss

    first = optimizer.step(closure)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    assert optimizer.step(closure) < first
    other = NaturalGradient(policy)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == pytest.approx(0.05)
    other.set_state(optimizer.get_state())


# Policy gradients


def bandit(policy: ppgrad.Policy, features: Tensor) -> None:
    """Actions whose scales differ by a hundred: badly conditioned for a plain gradient."""
    with pyro.plate("episodes", len(features)):
        action = ppgrad.policy("a", policy(features), context=features)
        wanted = torch.cat([features.sum(-1, keepdim=True), 0.02 * features[..., :1]], -1)
        ppgrad.reward("r", -(((action - wanted) / torch.tensor([1.0, 0.01])) ** 2).sum(-1))


def steps_to(goal: float, make: Callable[[ppgrad.Policy, Tensor], torch.optim.Optimizer], most: int) -> int:
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 2, covariance="constant", scale=[1.0, 0.01], hidden=())
    features = torch.randn(64, 2)
    objective = ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=16)
    optimizer = make(policy, features)
    for step in range(most):
        wanted = torch.cat([features.sum(-1, keepdim=True), 0.02 * features[..., :1]], -1)
        miss = (policy(features).mean - wanted) / torch.tensor([1.0, 0.01])
        if float(miss.detach().square().sum(-1).mean()) < goal:
            return step
        optimizer.zero_grad()
        (objective.differentiable_loss(bandit, None, policy, features) / len(features)).backward()
        optimizer.step()
    return most


def test_a_policy_gradient_takes_fewer_steps() -> None:
    """Against Adam and SGD, each with the best of several learning rates."""
    natural = steps_to(0.05, lambda p, f: NaturalGradient(p, f, lr=0.5, trust_region=1.0, damping=1e-4), 100)
    adam = min(
        steps_to(0.05, lambda p, f, lr=lr: torch.optim.Adam(p.parameters(), lr=lr), 100)
        for lr in (0.003, 0.01, 0.03, 0.1, 0.3)
    )
    plain = min(
        steps_to(0.05, lambda p, f, lr=lr: torch.optim.SGD(p.parameters(), lr=lr), 100) for lr in (1e-5, 1e-4, 1e-2)
    )
    assert natural <= 15
    assert 2 * natural < min(adam, plain), (natural, adam, plain)


@pytest.mark.parametrize("of_program", [False, True])
def test_svi_trains_a_program_with_policy_sites(of_program: bool) -> None:
    """The metric of the policy at given observations, or of the whole program."""
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 2, covariance="constant", scale=[1.0, 0.01], hidden=())
    features = torch.randn(64, 2)
    optimizer = (
        NaturalGradient(bandit, (policy, features), lr=0.5, trust_region=None)
        if of_program
        else NaturalGradient(policy, features, lr=0.5 / 64, trust_region=None)
    )
    svi = SVI(bandit, None, optimizer, loss=ExpectedReturn(ppgrad.Pathwise(), num_particles=16))
    first = svi.evaluate_loss(policy, features)
    for _ in range(10):
        last = svi.step(policy, features)
    assert last < first / 2
    assert last / 64 < 2.3  # the noise of the actions costs 2


# Variational inference

DATA = torch.tensor([2.6, 3.1, 3.4, 2.9, 3.3, 2.8])


def model(data: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 0.1))
    with pyro.plate("n", len(data)):
        pyro.sample("x", dist.Normal(mean + 100 * slope, 0.5), obs=data)


def losses(optimizer: Callable[[AutoNormal], object], loss: Trace_ELBO, steps: int) -> list[float]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    guide = AutoNormal(model)
    svi = SVI(model, guide, optimizer(guide), loss=loss)
    for _ in range(steps):
        svi.step(DATA)
    return [svi.evaluate_loss(DATA) for _ in range(50)]


@pytest.mark.parametrize("elbo", [ppgrad.ELBO, Trace_ELBO])
def test_svi_takes_fewer_steps(elbo: type) -> None:
    """Twenty natural steps against twenty of Adam, with the best of five learning rates."""
    loss = elbo(num_particles=20)
    natural = losses(lambda g: NaturalGradient(g, DATA, lr=0.2, trust_region=0.5, damping=1e-3), loss, 20)
    adam = [losses(lambda g, lr=lr: pyro.optim.Adam({"lr": lr}), loss, 20) for lr in (0.01, 0.05, 0.1, 0.2, 0.5)]
    best = min(torch.tensor(found).mean() for found in adam)
    assert torch.tensor(natural).mean() < best - 1, (torch.tensor(natural).mean(), best)


def test_at_changes_the_arguments() -> None:
    policy = GaussianPolicy(1, 1, covariance="constant", hidden=())
    optimizer = NaturalGradient(policy, trust_region=None, damping=0.0, iterations=5)
    (weight, bias) = policy.mean[0].parameters()
    start = float(weight.detach())
    weight.grad, bias.grad = torch.ones_like(weight), torch.zeros_like(bias)
    optimizer.at(torch.tensor([[2.0], [-2.0]])).step()  # F = diag(4, 1)
    assert float(weight.detach()) - start == pytest.approx(-0.25, rel=1e-4)


# Mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"damping": -1.0}, "damping=-1.0"),
        ({"trust_region": 0.0}, "trust_region=0.0"),
        ({"trust_region": "small"}, "trust_region='small'"),
        ({"iterations": 0}, "iterations=0"),
        ({"num_particles": 1.5}, "num_particles=1.5"),
    ],
)
def test_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        NaturalGradient(GaussianPolicy(1, 1), **options)


def test_parameters_instead_of_a_program() -> None:
    with pytest.raises(InvalidInput, match="write a policy"):
        NaturalGradient(GaussianPolicy(1, 1).parameters())


def test_a_policy_without_observations() -> None:
    policy = GaussianPolicy(1, 1)
    with_gradients(policy)
    with pytest.raises(InvalidInput, match=r"optimizer\.at\(observations\)"):
        NaturalGradient(policy).step()


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    policy = GaussianPolicy(1, 1)
    with_gradients(policy)
    policy.network[2].bias.grad[3] = float("nan")
    before = flat(policy)
    with pytest.raises(NonFinite, match=r"parameter 'network\.2\.bias' is nan; nothing has moved"):
        NaturalGradient(policy, torch.zeros(2, 1)).step()
    assert torch.equal(flat(policy), before)


def test_a_parameter_of_another_program() -> None:
    def learned(data: Tensor) -> None:
        scale = pyro.param("noise", torch.tensor(0.5), constraint=dist.constraints.positive)
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        with pyro.plate("n", len(data)):
            pyro.sample("x", dist.Normal(mean, scale), obs=data)

    guide = AutoNormal(learned)
    guide(DATA)
    before = flat(guide)
    svi = SVI(learned, guide, NaturalGradient(guide, DATA), loss=Trace_ELBO())
    with pytest.raises(InvalidProgram, match=r"Parameter 'noise' .* another optimizer"):
        svi.step(DATA)
    assert torch.equal(flat(guide), before)


def test_a_critic_beside_the_policy() -> None:
    """Damping alone would give it a step of gradient / λ."""

    class ActorCritic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.actor, self.critic = GaussianPolicy(3, 2), torch.nn.Linear(3, 1)

        def forward(self, features: Tensor) -> dist.TorchDistribution:
            return self.actor(features)

    both = ActorCritic()
    with_gradients(both)
    with pytest.raises(InvalidProgram, match=r"Parameter 'critic\.weight' .* another optimizer"):
        NaturalGradient(both, torch.zeros(2, 3)).step()
    both.critic.zero_grad()
    NaturalGradient(both, torch.zeros(2, 3)).step()
