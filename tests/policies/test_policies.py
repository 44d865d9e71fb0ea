"""Policies: shapes, starting points, covariances, what torch.func and the estimators need."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pyro
import pytest
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    BetaPolicy,
    CategoricalPolicy,
    ExpectedReturn,
    GaussianPolicy,
    MixturePolicy,
    Pathwise,
    Policy,
    ScoreFunction,
)
from ppgrad.analysis import describe
from ppgrad.testing import SUITE_FAILURE_RATE

FAILURE_RATE = SUITE_FAILURE_RATE / 200
FEATURES, ACTIONS = 4, 3


def gaussian_options() -> Iterator[dict[str, object]]:
    for squash in (False, True):
        yield {"covariance": "constant", "squash": squash}
        for covariance, state_dependent in itertools.product(("diagonal", "low_rank", "full"), (True, False)):
            options = {"covariance": covariance, "state_dependent": state_dependent, "squash": squash}
            yield options
            if state_dependent:
                yield {**options, "shared": False}


def all_policies() -> dict[str, Policy]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found: dict[str, Policy] = {
            "-".join(str(v) for v in options.values()): GaussianPolicy(FEATURES, ACTIONS, scale=0.7, **options)
            for options in gaussian_options()
        }
        factor = torch.linalg.cholesky(torch.eye(ACTIONS) + 0.5)
        found["constant-matrix"] = GaussianPolicy(FEATURES, ACTIONS, covariance="constant", scale=factor)
        for covariance, squash in itertools.product(("diagonal", "low_rank", "full"), (False, True)):
            found[f"mixture-{covariance}-{squash}"] = MixturePolicy(
                FEATURES, ACTIONS, covariance=covariance, squash=squash
            )
        found["beta"] = BetaPolicy(FEATURES, ACTIONS, bounds=(-2.0, [1.0, 2.0, 3.0]))
        found["categorical"] = CategoricalPolicy(FEATURES, ACTIONS)
        for policy in found.values():  # away from the start, so that everything depends on the features
            for parameter in policy.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
    return found


POLICIES = all_policies()
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
reparameterized = pytest.mark.parametrize(
    "policy",
    [p for p in POLICIES.values() if p(torch.zeros(FEATURES)).has_rsample],
    ids=[name for name, p in POLICIES.items() if p(torch.zeros(FEATURES)).has_rsample],
)


@every_policy
@pytest.mark.parametrize("batch", [(), (5,), (2, 5)], ids=str)
def test_shapes(policy: Policy, batch: tuple[int, ...]) -> None:
    fn = policy(torch.randn(*batch, FEATURES))
    action = fn.sample()
    assert isinstance(fn, TorchDistributionMixin)
    assert fn.batch_shape == batch
    assert fn.event_shape == (() if isinstance(policy, CategoricalPolicy) else (ACTIONS,))
    assert action.shape == batch + fn.event_shape
    assert fn.log_prob(action).shape == batch
    assert fn.entropy().shape == batch
    assert fn.mode.shape == action.shape
    assert fn.sample((7,)).shape == (7, *action.shape)
    assert fn.expand((6, *batch)).sample().shape == (6, *action.shape)
    assert not action.requires_grad
    assert fn.has_rsample == (not isinstance(policy, CategoricalPolicy | MixturePolicy))


@every_policy
def test_vmap_and_functional_call(policy: Policy) -> None:
    """One density and one score for each sample under torch.func equal those of a loop."""
    features = torch.randn(6, FEATURES)
    actions = policy(features).sample()
    parameters = dict(policy.named_parameters())

    def log_prob(parameters: dict[str, Tensor], features: Tensor, action: Tensor) -> Tensor:
        return torch.func.functional_call(policy, parameters, (features,)).log_prob(action)

    together = policy(features).log_prob(actions)
    mapped = torch.func.vmap(log_prob, (None, 0, 0))(parameters, features, actions)
    torch.testing.assert_close(mapped, together)
    scores = torch.func.vmap(torch.func.grad(log_prob), (None, 0, 0))(parameters, features, actions)
    total = torch.autograd.grad(together.sum(), list(parameters.values()))
    for found, expected in zip(scores.values(), total, strict=True):
        torch.testing.assert_close(found.sum(0), expected, rtol=1e-4, atol=1e-4)
    drawn = torch.func.vmap(lambda f: policy(f).sample(), randomness="different")(features[:1].expand(50, -1))
    assert len(drawn.unique(dim=0)) > 1


@reparameterized
def test_reparameterized_draws_under_vmap(policy: Policy) -> None:
    def total(parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        return torch.func.functional_call(policy, parameters, (features,)).rsample().sum()

    with pytest.warns() if isinstance(policy, BetaPolicy) else no_warning():  # torch is slow at Gamma's gradient
        found = torch.func.vmap(torch.func.grad(total), (None, 0), randomness="different")(
            dict(policy.named_parameters()), torch.randn(5, FEATURES)
        )
    assert all(bool((gradient != 0).any()) and bool(torch.isfinite(gradient).all()) for gradient in found.values())


def no_warning():
    return pytest.MonkeyPatch.context()


def return_of(policy: Policy, features: Tensor, target: Tensor) -> None:
    with pyro.plate("episodes", len(features)):
        action = ppgrad.policy("a", policy(features), context=features)
        miss = action - (0.0 if isinstance(policy, CategoricalPolicy) else target)
        ppgrad.reward("r", -miss.square().reshape(len(features), -1).sum(-1))


@every_policy
def test_pathwise_and_score_function_agree(policy: Policy) -> None:
    """The score function's mean is the pathwise one's, or, for a discrete policy, the exact gradient."""
    policy = copy.deepcopy(policy)
    features, target = torch.tensor([[0.3, -0.2, 0.5, 0.1], [1.0, 0.4, -0.3, 0.0]]), torch.tensor([0.2, -0.1, 0.3])
    args = (policy, features, target)
    score = ppgrad.measure(ExpectedReturn(ScoreFunction()), return_of, args=args, replicates=2000, seed=1)
    if isinstance(policy, CategoricalPolicy):
        reference, mcse = ppgrad.exact_gradient(ExpectedReturn(), return_of, args=args), None
    elif isinstance(policy, MixturePolicy):
        return
    else:
        path = ppgrad.measure(ExpectedReturn(Pathwise()), return_of, args=args, replicates=2000, seed=2)
        reference, mcse = path.mean, path.mcse
    components = sum(p.numel() for p in policy.parameters())
    for name, draws in score.draws.items():
        statistics = describe(
            draws.numpy(), torch.as_tensor(reference[name]).numpy(), None if mcse is None else mcse[name]
        )
        assert (statistics.p_value > FAILURE_RATE / components / len(POLICIES)).all(), name


def test_a_mixture_has_the_score_function_gradient() -> None:
    """One action, a quadratic cost: the exact gradient is that of −E[(a − t)²] in closed form."""
    torch.manual_seed(3)
    policy = MixturePolicy(2, 1, components=3, hidden=())
    features = torch.tensor([[0.5, -1.0]])

    def program(policy: Policy) -> None:
        with pyro.plate("n", 1):
            ppgrad.reward("r", -(ppgrad.policy("a", policy(features)) - 0.4).square().sum(-1))

    fn = policy(features)
    part = fn.component_distribution
    value = -(fn.mixture_distribution.probs * ((part.mean - 0.4) ** 2 + part.variance).sum(-1)).sum()
    names, leaves = zip(*policy.named_parameters(), strict=True)
    exact = dict(zip(names, torch.autograd.grad(value, leaves), strict=True))
    found = ppgrad.measure(ExpectedReturn(ScoreFunction()), program, args=(policy,), replicates=20_000, seed=0)
    for name, draws in found.draws.items():
        p_value = describe(draws.numpy(), exact[name.removeprefix("policy.")].numpy()).p_value
        assert (p_value > FAILURE_RATE / 60).all(), name


@pytest.mark.parametrize("options", [*gaussian_options()], ids=lambda o: "-".join(map(str, o.values())))
def test_it_starts_at_the_scale(options: dict[str, object]) -> None:
    """For every state the covariance is that of ``scale`` and the mean is nearly zero."""
    scale = torch.tensor([0.5, 1.0, 2.0])
    fn = GaussianPolicy(FEATURES, ACTIONS, scale=scale, **options)(torch.randn(20, FEATURES))
    base = getattr(fn, "base_dist", fn) if options["squash"] else fn
    torch.testing.assert_close(base.variance, (scale**2).expand(20, -1))
    assert base.mean.abs().max() < 0.2


@pytest.mark.parametrize("covariance", ["constant", "full"])
@pytest.mark.parametrize("state_dependent", [True, False])
def test_it_starts_at_a_cholesky_factor(covariance: str, state_dependent: bool) -> None:
    factor = torch.linalg.cholesky(torch.tensor([[1.0, 0.6], [0.6, 2.0]]))
    fn = GaussianPolicy(3, 2, covariance=covariance, state_dependent=state_dependent, scale=factor)(torch.randn(4, 3))
    torch.testing.assert_close(fn.scale_tril, factor.expand(4, 2, 2))


def test_what_is_learned() -> None:
    """A constant covariance has no parameter, a free one a vector, a state-dependent one a network."""

    def names(**options: object) -> set[str]:
        return {name for name, _ in GaussianPolicy(3, 2, hidden=(), **options).named_parameters()}

    mean = {"mean.0.weight", "mean.0.bias"}
    assert names(covariance="constant") == names(covariance="constant", state_dependent=True) == mean
    assert names(covariance="full", state_dependent=False) == mean | {"spread"}
    assert names(covariance="full") == {"network.0.weight", "network.0.bias"}
    assert names(covariance="full", shared=False) == mean | {"spread_network.0.weight", "spread_network.0.bias"}


def test_a_full_covariance_depends_on_the_state() -> None:
    policy = GaussianPolicy(2, 2, covariance="full", hidden=())
    nn.init.normal_(policy.network[0].weight)
    factors = policy(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).scale_tril
    assert bool((factors[0] != factors[1])[torch.tril_indices(2, 2).unbind()].all())
    assert bool((factors.diagonal(dim1=-2, dim2=-1) > 0).all())
    assert bool((factors[:, 0, 1] == 0).all())


@pytest.mark.parametrize("covariance", ["diagonal", "low_rank", "full"])
def test_the_floor_holds(covariance: str) -> None:
    """However negative the network's output, the density stays finite and the floor is the scale."""
    policy = GaussianPolicy(2, 2, covariance=covariance, floor=0.05, state_dependent=False)
    policy.spread.data[:2] = -1e4
    fn = policy(torch.zeros(2))
    scale = fn.scale_tril.diagonal() if covariance == "full" else fn.variance.sqrt()
    if covariance == "low_rank":
        scale = fn.cov_diag.sqrt()
    torch.testing.assert_close(scale, torch.full((2,), 0.05))
    assert torch.isfinite(fn.log_prob(fn.mean + 0.1))


def test_low_rank_is_low_rank() -> None:
    policy = GaussianPolicy(3, 5, covariance="low_rank", rank=2, scale=0.3)
    fn = policy(torch.randn(3))
    assert fn.cov_factor.shape == (5, 2)
    gradient = torch.autograd.grad(fn.log_prob(torch.ones(5)), policy.network[-1].bias)[0]
    assert bool((gradient[10:] != 0).all())  # W = 0 would be a saddle


@pytest.mark.parametrize("matrix", [False, True])
def test_the_analytic_score_of_a_linear_policy(matrix: bool) -> None:
    """∇_W log π(a|φ) = Σ⁻¹ (a − W φ) φᵀ for a constant covariance."""
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.8]]) if matrix else torch.diag(torch.tensor([0.25, 4.0]))
    scale = torch.linalg.cholesky(covariance) if matrix else [0.5, 2.0]
    policy = GaussianPolicy(3, 2, covariance="constant", hidden=(), scale=scale)
    features = torch.randn(10, 3)
    actions = policy(features).sample()
    weight, bias = policy.mean[0].weight, policy.mean[0].bias
    pull = torch.linalg.solve(covariance, (actions - features @ weight.T - bias).T).T
    found = ppgrad.score(policy, features, actions)
    torch.testing.assert_close(found["mean.0.weight"], pull[:, :, None] * features[:, None, :])
    torch.testing.assert_close(found["mean.0.bias"], pull)


@every_policy
def test_entropy(policy: Policy) -> None:
    """The mean of −log π is the entropy, by a t test; exact entropies do not vary."""
    fn = policy(torch.tensor([0.2, -0.4, 1.0, 0.3])).expand((20_000,))
    with torch.no_grad():
        entropies, surprise = fn.entropy(), -fn.log_prob(fn.sample())
        if policy.has_exact_entropy or isinstance(policy, GaussianPolicy):
            reference, error = entropies[0].numpy(), 0.0
            torch.testing.assert_close(entropies, entropies[:1].expand(20_000))
        else:
            reference, error = entropies.mean().numpy(), (entropies.std() / 20_000**0.5).numpy()
            assert entropies.std() > 0
    assert describe(surprise.numpy(), reference, error).p_value > FAILURE_RATE / len(POLICIES)


def test_the_gradient_of_a_mixtures_entropy_is_unbiased() -> None:
    """Against quadrature on a grid, in one dimension."""
    torch.manual_seed(2)
    policy = MixturePolicy(1, 1, components=2, hidden=()).double()
    features, leaves = torch.ones(1, dtype=torch.double), [*policy.parameters()]
    for leaf in leaves:
        leaf.data += 0.7 * torch.randn_like(leaf)
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.double)[:, None]
    log_prob = policy(features).log_prob(grid)
    exact = torch.autograd.grad(-torch.trapezoid(log_prob.exp() * log_prob, grid[:, 0]), leaves)
    parameters = dict(policy.named_parameters())

    def entropy(parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        return torch.func.functional_call(policy, parameters, (features,)).entropy()

    draws = torch.func.vmap(torch.func.grad(entropy), (None, 0), randomness="different")(
        parameters, features.expand(20_000, 1)
    )
    for found, expected in zip(draws.values(), exact, strict=True):
        assert (describe(found.detach().numpy(), expected.numpy()).p_value > FAILURE_RATE / 20).all()


def test_double_precision_and_deep_copies() -> None:
    policy = copy.deepcopy(GaussianPolicy(3, 2, covariance="full", squash=True)).double()
    assert policy(torch.zeros(3)).rsample().dtype == torch.double
    torch.save(policy.state_dict(), "/dev/null")
    assert "low" in policy.state_dict()
