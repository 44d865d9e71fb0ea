"""Scores have mean zero and the Fisher matrix as covariance; Fisher matrices have closed forms."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    BetaPolicy,
    CannotBeExact,
    CategoricalPolicy,
    GaussianPolicy,
    InvalidInput,
    MixturePolicy,
    NonFinite,
    Policy,
    Unsupported,
    fisher,
    fisher_vector_product,
    score,
)
from ppgrad.analysis import describe
from ppgrad.testing import SUITE_FAILURE_RATE

FAILURE_RATE = SUITE_FAILURE_RATE / 200
SAMPLES = 20_000


class Family(nn.Module):
    """A distribution as a function of parameters, expanded to a batch."""

    def __init__(self, make: Callable[..., dist.TorchDistribution], **parameters: object):
        super().__init__()
        self.make = make
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(torch.as_tensor(value) * 1.0))

    def forward(self, like: Tensor) -> dist.TorchDistribution:
        return self.make(**dict(self.named_parameters())).expand(like.shape)


COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.8]])
LOGITS = torch.tensor([0.3, -0.5, 1.0])
PROBS = torch.softmax(LOGITS, 0)
P = torch.sigmoid(torch.tensor(0.4))

CLOSED_FORMS = {
    "normal": (
        Family(lambda mu, sigma: dist.Normal(mu, sigma), mu=0.3, sigma=0.7),
        torch.diag(torch.tensor([1 / 0.49, 2 / 0.49])),
    ),
    "normal_log_sigma": (
        Family(lambda mu, log_sigma: dist.Normal(mu, log_sigma.exp()), mu=0.3, log_sigma=-0.4),
        torch.diag(torch.tensor([torch.exp(torch.tensor(0.8)), 2.0])),
    ),
    "bernoulli": (Family(lambda logit: dist.Bernoulli(logits=logit), logit=0.4), (P * (1 - P)).reshape(1, 1)),
    "categorical": (
        Family(lambda logits: dist.Categorical(logits=logits), logits=LOGITS),
        torch.diag(PROBS) - torch.outer(PROBS, PROBS),
    ),
    "multivariate_normal": (
        Family(lambda mean: dist.MultivariateNormal(mean, COVARIANCE), mean=[0.1, -0.2]),
        torch.linalg.inv(COVARIANCE),
    ),
    "poisson": (Family(lambda rate: dist.Poisson(rate), rate=2.5), torch.tensor([[0.4]])),
    "exponential": (Family(lambda rate: dist.Exponential(rate), rate=2.0), torch.tensor([[0.25]])),
}
closed_forms = pytest.mark.parametrize(("family", "expected"), CLOSED_FORMS.values(), ids=CLOSED_FORMS.keys())


def flat(scores: dict[str, Tensor], batch_dims: int = 1) -> Tensor:
    return torch.cat([s.flatten(batch_dims) if s.dim() > batch_dims else s[..., None] for s in scores.values()], -1)


def check_moments(scores: Tensor, matrix: Tensor, share: float) -> None:
    """Mean zero and E[s sᵀ] = F, each component by a t test."""
    n = scores.shape[1]
    rate = FAILURE_RATE / share / (n + n * n)
    products = scores[:, :, None] * scores[:, None, :]
    assert (describe(scores.numpy(), torch.zeros(n).numpy()).p_value > rate).all()
    assert (describe(products.numpy(), matrix.numpy()).p_value > rate).all()


@closed_forms
def test_exact_fisher(family: Family, expected: Tensor) -> None:
    torch.testing.assert_close(fisher(family, torch.zeros(4)), expected, rtol=1e-4, atol=1e-5)


@closed_forms
def test_score_has_mean_zero_and_covariance_fisher(family: Family, expected: Tensor) -> None:
    batch = torch.zeros(SAMPLES)
    check_moments(flat(score(family, batch, family(batch).sample())), expected, len(CLOSED_FORMS))


@closed_forms
def test_empirical_fisher_is_the_mean_square_of_the_scores(family: Family, expected: Tensor) -> None:
    batch = torch.zeros(50)
    actions = family(batch).sample()
    scores = flat(score(family, batch, actions))
    matrix = fisher(family, batch, kind="empirical", actions=actions)
    torch.testing.assert_close(matrix, scores.T @ scores / 50)
    vector = torch.randn(len(matrix))
    product = fisher_vector_product(family, batch, vector, kind="empirical", actions=actions)
    torch.testing.assert_close(
        torch.cat([p.reshape(-1) for p in product.values()]), matrix @ vector, rtol=1e-4, atol=1e-4
    )


def policies() -> dict[str, Policy]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        found: dict[str, Policy] = {
            f"{covariance}-{squash}": GaussianPolicy(2, 2, covariance=covariance, squash=squash, hidden=())
            for covariance, squash in itertools.product(("constant", "diagonal", "low_rank", "full"), (False, True))
        }
        found["state_independent"] = GaussianPolicy(2, 2, covariance="full", state_dependent=False, hidden=(2,))
        found["beta"] = BetaPolicy(2, 2, hidden=())
        found["categorical"] = CategoricalPolicy(2, 3, hidden=(2,))
        found["mixture"] = MixturePolicy(2, 1, components=2, hidden=())
        for policy in found.values():
            for parameter in policy.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
    return found


POLICIES = policies()
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())


@every_policy
def test_scores_of_policies(policy: Policy) -> None:
    """At one observation: mean zero, covariance Fisher (for a mixture, the mean alone)."""
    features = torch.tensor([0.5, -1.0]).expand(SAMPLES, 2)
    scores = flat(score(policy, features, policy(features).sample()))
    if isinstance(policy, MixturePolicy):
        p_value = describe(scores.numpy(), torch.zeros(scores.shape[1]).numpy()).p_value
        assert (p_value > FAILURE_RATE / len(POLICIES) / scores.shape[1]).all()
    else:
        check_moments(scores, fisher(policy, features[:1]), len(POLICIES))


@every_policy
def test_score_is_the_gradient_of_the_log_density(policy: Policy) -> None:
    features = torch.randn(2, 3, 2)
    actions = policy(features).sample()
    scores = score(policy, features, actions)
    single = score(policy, features[1, 2], actions[1, 2])
    for name, parameter in policy.named_parameters():
        assert scores[name].shape == (2, 3, *parameter.shape)
        torch.testing.assert_close(scores[name][1, 2], single[name], rtol=1e-4, atol=1e-4)
        one = torch.autograd.grad(policy(features[0, 1]).log_prob(actions[0, 1]), parameter)[0]
        torch.testing.assert_close(scores[name][0, 1], one, rtol=1e-4, atol=1e-4)
        assert parameter.grad is None


@every_policy
@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_fisher_vector_product_is_the_matrix_times_the_vector(policy: Policy, kind: str) -> None:
    if kind == "exact" and isinstance(policy, MixturePolicy):
        return
    features = torch.randn(6, 2)
    actions = None if kind == "exact" else policy(features).sample()
    matrix = fisher(policy, features, kind=kind, actions=actions)
    vector = {name: torch.randn_like(parameter) for name, parameter in policy.named_parameters()}
    product = fisher_vector_product(policy, features, vector, kind=kind, actions=actions)
    assert {name: p.shape for name, p in product.items()} == {name: v.shape for name, v in vector.items()}
    expected = matrix @ torch.cat([v.detach().reshape(-1) for v in vector.values()])
    torch.testing.assert_close(torch.cat([p.reshape(-1) for p in product.values()]), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-4, atol=1e-4)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-4 * torch.linalg.eigvalsh(matrix).max()


def test_drawn_actions_depend_on_the_seed_alone() -> None:
    policy, features = POLICIES["mixture"], torch.randn(5, 2)
    state = torch.get_rng_state()
    first = fisher(policy, features, kind="empirical", num_particles=2)
    assert torch.equal(first, fisher(policy, features, kind="empirical", num_particles=2))
    assert not torch.equal(first, fisher(policy, features, kind="empirical", num_particles=2, seed=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_fisher_is_averaged_over_the_batch() -> None:
    policy, features = POLICIES["full-False"], torch.randn(2, 2)
    each = torch.stack([fisher(policy, one) for one in features])
    torch.testing.assert_close(fisher(policy, features), each.mean(0), rtol=1e-4, atol=1e-4)


# Pyro programs


def chain() -> None:
    theta = pyro.param("theta", torch.tensor(0.4))
    sigma = pyro.param("sigma", torch.tensor(0.5), constraint=dist.constraints.positive)
    x = pyro.sample("x", dist.Normal(theta, 1.0))
    with pyro.plate("n", 3):
        pyro.sample("y", dist.Normal(theta * x, sigma))
    pyro.sample("seen", dist.Normal(x, theta.exp()), obs=torch.tensor(1.0))


def test_scores_of_a_program() -> None:
    """Against the gradient by hand: with respect to log σ, for σ is positive; what is observed has no score."""
    x, y = torch.randn(4), torch.randn(4, 3)
    scores = score(chain, (), {"x": x, "y": y})
    theta, sigma = 0.4, 0.5
    miss = y - theta * x[:, None]
    torch.testing.assert_close(scores["theta"], x - theta + (miss * x[:, None]).sum(1) / sigma**2)
    torch.testing.assert_close(scores["sigma"], (miss**2 / sigma**2 - 1).sum(1))
    assert not list(pyro.get_param_store())


def test_fisher_of_a_program() -> None:
    """F_θθ = 1 + 3 E[x²]/σ² with E[x²] = 1 + θ², drawn; F_(log σ, log σ) = 2 · 3."""
    matrix = fisher(chain, num_particles=2)
    torch.testing.assert_close(matrix[1, 1], torch.tensor(6.0))
    torch.testing.assert_close(matrix[0, 1], torch.tensor(0.0), rtol=0, atol=1e-5)
    draws = torch.stack([fisher(chain, seed=seed)[0, 0] for seed in range(100)])
    assert describe(draws.numpy(), 1 + 3 * 1.16 / 0.25).p_value > FAILURE_RATE
    assert not list(pyro.get_param_store())


def test_fisher_of_a_plate_with_a_mask_and_a_scale() -> None:
    def guide() -> None:
        theta = pyro.param("theta", torch.tensor(0.4))
        with pyro.plate("n", 10, subsample_size=4), pyro.poutine.mask(mask=torch.tensor([True, True, True, False])):
            pyro.sample("x", dist.Normal(theta, 0.5))

    expected = torch.tensor([[4.0 * 3 * 10 / 4]])
    torch.testing.assert_close(fisher(guide), expected)
    masked = torch.tensor([True, False])
    torch.testing.assert_close(
        fisher(Family(lambda mu: dist.Normal(mu, 0.5).expand((2,)).mask(masked).to_event(1), mu=0.1), torch.zeros(())),
        torch.tensor([[4.0]]),
    )


def test_fisher_of_guides() -> None:
    def model() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    normal = AutoNormal(model, init_scale=0.5)
    normal()
    matrix = fisher(normal)
    torch.testing.assert_close(matrix[:2, :2], 4 * torch.eye(2))
    full = AutoMultivariateNormal(model, init_scale=0.5)
    full()
    prefix = "AutoMultivariateNormal."
    vector = {prefix + "loc": torch.ones(2), prefix + "scale": torch.zeros(2), prefix + "scale_tril": torch.zeros(2, 2)}
    product = fisher_vector_product(full, (), vector)
    torch.testing.assert_close(product[prefix + "loc"], 4 * torch.ones(2))


def test_a_transform_with_parameters_does_not_lose_its_gradient() -> None:
    """torch's divergence of two affine transforms compares their values, and would be zero."""

    def make(loc: Tensor) -> dist.TorchDistribution:
        return dist.TransformedDistribution(dist.Normal(0.0, 0.5), [dist.transforms.AffineTransform(loc, 1.0)])

    family = Family(make, loc=0.3)
    with pytest.raises(CannotBeExact):
        fisher(family, torch.zeros(3))
    draws = fisher(family, torch.zeros(20_000), kind="empirical")
    scores = score(family, torch.zeros(20_000), family(torch.zeros(20_000)).sample().detach())
    assert describe(scores["loc"].square().numpy(), 4.0).p_value > FAILURE_RATE
    assert 3 < float(draws) < 5


def test_log_normal_is_exact() -> None:
    family = Family(lambda mu: dist.LogNormal(mu, 0.5), mu=0.3)
    torch.testing.assert_close(fisher(family, torch.zeros(3)), torch.tensor([[4.0]]))


def test_a_policy_that_vmap_cannot_carry_runs_in_a_loop(caplog: pytest.LogCaptureFixture) -> None:
    theta = torch.tensor(0.5, requires_grad=True)

    def stubborn(features: Tensor) -> dist.TorchDistribution:
        if features.sum() > 1e6:
            raise ValueError
        return dist.Normal(theta * features, 1.0)

    features, actions = torch.randn(4), torch.randn(4)
    torch.testing.assert_close(
        score(stubborn, features, actions)["theta"], ((actions - 0.5 * features) * features).detach()
    )
    assert "runs in a loop" in caplog.text


# Mistakes


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p, f, a: score(p, f, a[:2]), InvalidInput, ["(5, 2)", "(2, 2)"]),
        (lambda p, f, a: score(lambda x: p(f), f[:3], a), InvalidInput, ["batch dimensions (5,)", "(3, 2)"]),
        (lambda p, f, a: score(lambda x: x, f, a), InvalidInput, ["returns a distribution", "Tensor"]),
        (lambda p, f, a: score(p, f, {"a": a}), InvalidInput, ["names a", "none"]),
        (lambda p, f, a: score(lambda x: dist.Normal(x, 1.0), f, f), InvalidInput, ["no parameter"]),
        (lambda p, f, a: score(chain, (), {"x": a[:, 0]}), InvalidInput, ["names x", "x, y"]),
        (lambda p, f, a: score(chain, (), {"x": a[:, 0], "y": a}), InvalidInput, ["'y'", "(3,)", "(2,)"]),
        (lambda p, f, a: score(chain, (), {"x": a[:3, 0], "y": f}), InvalidInput, ["first dimension"]),
        (lambda p, f, a: score(p, f, a * float("nan")), InvalidInput, ["nan", "index (0,)", "support"]),
        (lambda p, f, a: score(CategoricalPolicy(2, 3), f, f[:, 0] + 7), InvalidInput, ["7.0", "Categorical"]),
        (lambda p, f, a: score(BetaPolicy(2, 2), f, a - 1), InvalidInput, ["[-1.0, -1.0]", "ScaledBeta"]),
        (lambda p, f, a: fisher(BetaPolicy(2, 2), f, kind="empirical", actions=a - 1), InvalidInput, ["ScaledBeta"]),
        (lambda p, f, a: score(chain, (), {"x": f[:, 0], "y": torch.full((5, 3), torch.inf)}), NonFinite, ["'theta'"]),
        (lambda p, f, a: fisher(p, f[:0]), InvalidInput, ["(0,)", "one observation"]),
        (lambda p, f, a: fisher(p, f[:0], kind="empirical"), InvalidInput, ["(0,)", "one observation"]),
        (lambda p, f, a: fisher(p), InvalidInput, ["args=", "features"]),
        (lambda p, f, a: fisher(3), InvalidInput, ["3 is no program"]),
        (lambda p, f, a: fisher(p, f, kind="expected"), InvalidInput, ["'expected'", "'exact'"]),
        (lambda p, f, a: fisher(p, f, actions=a), InvalidInput, ["'exact'", "Leave actions out"]),
        (lambda p, f, a: fisher(p, f, kind="empirical", actions=a[:1]), InvalidInput, ["(5, 2)", "(1, 2)"]),
        (lambda p, f, a: fisher(p, f, num_particles=0), InvalidInput, ["num_particles=0"]),
        (lambda p, f, a: fisher(p, f, seed=-1), InvalidInput, ["seed=-1"]),
        (lambda p, f, a: fisher(lambda x: x, f), InvalidInput, ["no random site", "Tensor"]),
        (lambda p, f, a: fisher(chain, kind="empirical", actions=a), InvalidInput, ["random sites"]),
        (lambda p, f, a: fisher(POLICIES["mixture"], f), CannotBeExact, ["GaussianMixture", "'empirical'"]),
        (
            lambda p, f, a: fisher_vector_product(p, f, torch.ones(3)),
            InvalidInput,
            ["mean.0.weight (2, 2)", "6 numbers"],
        ),
        (lambda p, f, a: fisher_vector_product(p, f, {"mean.0.bias": a[0]}), InvalidInput, ["mean.0.weight"]),
        (lambda p, f, a: fisher_vector_product(p, f), InvalidInput, ["mean.0.weight"]),
        (
            lambda p, f, a: fisher(Family(lambda top: dist.Uniform(0.0, top), top=2.0), f),
            Unsupported,
            ["Uniform", "moves with a parameter"],
        ),
    ],
)
def test_mistakes(call: Callable[..., object], error: type[Exception], words: list[str]) -> None:
    features, actions = torch.zeros(5, 2), torch.zeros(5, 2)
    policy = GaussianPolicy(2, 2, covariance="constant", hidden=())
    with pytest.raises(error) as raised:
        call(policy, features, actions)
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) == 1


def test_no_samples_no_scores() -> None:
    policy = POLICIES["beta"]
    assert score(policy, torch.zeros(0, 2), torch.zeros(0, 2))["network.0.weight"].shape == (0, 4, 2)


def test_public_names() -> None:
    assert ppgrad.score is score
    assert ppgrad.fisher is fisher
