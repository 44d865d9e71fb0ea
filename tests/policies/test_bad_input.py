"""Mistakes in a policy's arguments and numbers: the error names what is wrong and what to write."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pytest
import torch

import ppgrad
from ppgrad import (
    BetaPolicy,
    CategoricalPolicy,
    ExpectedReturn,
    GaussianPolicy,
    InvalidInput,
    MixturePolicy,
    NonFinite,
    Pathwise,
    Policy,
    ScoreFunction,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: GaussianPolicy(0, 1), ["features=0", "from 1 up"]),
        (lambda: GaussianPolicy(3, 2.0), ["actions=2.0"]),
        (lambda: GaussianPolicy(3, True), ["actions=True"]),
        (lambda: CategoricalPolicy(3, 1), ["actions=1", "from 2 up"]),
        (lambda: MixturePolicy(3, 2, components=1), ["components=1", "from 2 up"]),
        (lambda: GaussianPolicy(3, 2, hidden=64), ["hidden=64", "(64, 64)"]),
        (lambda: GaussianPolicy(3, 2, hidden=(64, 0)), ["hidden=0"]),
        (lambda: GaussianPolicy(3, 2, activation=torch.tanh), ["activation", "torch.nn.Tanh"]),
        (lambda: GaussianPolicy(3, 2, covariance="spherical"), ["'spherical'", "'low_rank'"]),
        (lambda: MixturePolicy(3, 2, covariance="constant"), ["'constant'", "'diagonal'"]),
        (lambda: GaussianPolicy(3, 2, covariance="constant", floor=0.1), ["floor=0.1", "Leave floor out"]),
        (lambda: GaussianPolicy(3, 2, covariance="constant", rank=1), ["rank=1", "Leave rank out"]),
        (lambda: GaussianPolicy(3, 2, covariance="full", rank=1), ["rank=1", "low_rank"]),
        (lambda: GaussianPolicy(3, 2, covariance="low_rank", rank=3), ["rank=3", "'full'"]),
        (lambda: GaussianPolicy(3, 2, covariance="constant", shared=False), ["shared=False", "Leave shared out"]),
        (lambda: GaussianPolicy(3, 2, state_dependent=False, shared=False), ["shared=False", "state_dependent=True"]),
        (lambda: GaussianPolicy(3, 2, bounds=(-1, 1)), ["bounds", "squash=True", "BetaPolicy"]),
        (lambda: MixturePolicy(3, 2, bounds=(-1, 1)), ["bounds", "squash=True"]),
        (lambda: GaussianPolicy(3, 2, squash=True, bounds=(1, -1)), ["(1, -1)", "low below its high"]),
        (lambda: GaussianPolicy(3, 2, squash=True, bounds=2.0), ["2.0", "(low, high)"]),
        (lambda: GaussianPolicy(3, 2, squash=True, bounds=(-INF, 1)), ["bounds=(-inf, 1)", "finite"]),
        (lambda: BetaPolicy(3, 2, bounds=([0.0] * 3, 1.0)), ["one for each of the 2 actions"]),
        (lambda: BetaPolicy(3, 2, bounds=None), ["bounds=None", "(low, high)"]),
        (lambda: BetaPolicy(3, 2, concentration=1.0), ["concentration=1.0", "2.0"]),
        (lambda: BetaPolicy(3, 2, squash=True), ["squash=True", "bounds=(low, high)"]),
        (lambda: CategoricalPolicy(3, 2, squash=True), ["squash=True", "GaussianPolicy(…, squash=True)"]),
        (lambda: GaussianPolicy(3, 2, scale=0.0), ["scale=0.0", "above 0"]),
        (lambda: GaussianPolicy(3, 2, scale=[1.0, NAN]), ["finite"]),
        (lambda: GaussianPolicy(3, 2, scale=[1.0, 1.0, 1.0]), ["each of the 2 actions"]),
        (lambda: GaussianPolicy(3, 2, scale="wide"), ["'wide'", "one number"]),
        (lambda: GaussianPolicy(3, 2, scale=torch.eye(2)), ["'constant' or 'full'"]),
        (lambda: GaussianPolicy(3, 2, covariance="full", scale=torch.ones(2, 2)), ["torch.linalg.cholesky"]),
        (lambda: GaussianPolicy(3, 2, covariance="full", scale=torch.eye(3)), ["shape (2, 2)"]),
        (lambda: GaussianPolicy(3, 2, squash="no"), ["squash='no'", "True or False"]),
        (lambda: MixturePolicy(3, 2, squash=1), ["squash=1", "True or False"]),
        (lambda: GaussianPolicy(3, 2, shared=None), ["shared=None"]),
        (lambda: GaussianPolicy(3, 2, state_dependent="no"), ["state_dependent='no'"]),
        (lambda: GaussianPolicy(3, 2, floor=0.0), ["floor=0.0", "positive"]),
        (lambda: GaussianPolicy(3, 2, floor=2.0), ["floor 2", "floor below it"]),
    ],
)
def test_arguments(build: Callable[[], Policy], words: list[str]) -> None:
    with pytest.raises(InvalidInput) as raised:
        build()
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("features", [torch.zeros(5, 4), torch.tensor(1.0)])
def test_features_of_another_shape(features: torch.Tensor) -> None:
    with pytest.raises(InvalidInput, match=r"features of shape \(…, 3\)"):
        GaussianPolicy(3, 2)(features)


def test_images_are_to_be_flattened() -> None:
    with pytest.raises(
        InvalidInput, match=r"policy\(observation.flatten\(1\)\) with CategoricalPolicy\(features=48, …\)"
    ):
        CategoricalPolicy(48, 2)(torch.zeros(2, 4, 4, 3))


@pytest.mark.parametrize(
    "policy", [CategoricalPolicy(3, 2), GaussianPolicy(3, 2, covariance="full"), BetaPolicy(3, 2), MixturePolicy(3, 2)]
)
def test_an_empty_batch(policy: Policy) -> None:
    assert policy(torch.zeros(0, 3)).sample().shape[0] == 0


@pytest.mark.parametrize("features", [None, "state"])
def test_features_that_are_no_numbers(features: object) -> None:
    with pytest.raises(InvalidInput, match=type(features).__name__):
        GaussianPolicy(3, 2)(features)


def test_whole_numbers_and_arrays_are_features_too() -> None:
    policy = GaussianPolicy(3, 2)
    expected = policy(torch.tensor([[1.0, 2.0, 3.0]])).mean
    assert torch.equal(policy(torch.tensor([[1, 2, 3]])).mean, expected)
    assert torch.equal(policy(torch.tensor([[1.0, 2.0, 3.0]]).double().numpy()).mean, expected)


def test_features_that_are_not_finite() -> None:
    features = torch.zeros(5, 3)
    features[2, 1] = NAN
    with pytest.raises(NonFinite, match=r"GaussianPolicy: the features are nan at index \(2, 1\)\. Keep"):
        GaussianPolicy(3, 2)(features)


def test_a_parameter_that_is_not_finite() -> None:
    policy = MixturePolicy(3, 2)
    policy.network[2].weight.data[4, 1] = NAN
    with pytest.raises(NonFinite, match=r"parameter 'network.2.weight' is nan at index \(4, 1\)\. Lower the learning"):
        policy(torch.zeros(3))
    free = GaussianPolicy(3, 2, state_dependent=False)
    free.spread.data[1] = INF
    with pytest.raises(NonFinite, match=r"parameter 'spread' is inf at index \(1,\)"):
        free(torch.zeros(3))


def test_a_layer_that_overflows() -> None:
    policy = CategoricalPolicy(3, 2, activation=torch.nn.ReLU)
    for layer in (0, 2, 4):
        policy.network[layer].weight.data.abs_().mul_(1e20)
    with pytest.raises(NonFinite, match=r"layer 'network.2' returns inf at index \(0, \d+\).*Normalize the obs"):
        policy(torch.full((1, 3), 1.0))


def test_a_layer_too_large_for_a_density() -> None:
    policy = GaussianPolicy(3, 2, hidden=())
    policy.network[0].weight.data.fill_(1e25)
    with pytest.raises(NonFinite, match=r"layer 'network.0' returns 3e\+25 at index \(0, 0\), whose square overflows"):
        policy(torch.ones(1, 3))


@pytest.mark.parametrize("squash", [False, True])
def test_the_entropy_of_a_mixture_is_not_exact(squash: bool) -> None:
    policy = MixturePolicy(1, 1, squash=squash)

    def program(policy: Policy) -> None:
        ppgrad.reward("r", ppgrad.policy("a", policy(torch.ones(1))).sum())

    with pytest.raises(ppgrad.InvalidProgram, match=r"'a'.*only an estimate.*exact=False"):
        ppgrad.gradient(ppgrad.MaxEntReturn(exact=True), program, args=(policy,), seed=0)
    ppgrad.gradient(ppgrad.MaxEntReturn(), program, args=(policy,), seed=0)


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()], ids=["pathwise", "score"])
@pytest.mark.parametrize("num_particles", [1, 4])
def test_the_step_is_named(estimator: ppgrad.Estimator, num_particles: int) -> None:
    """Inside of a program, under vmap or not, the error says after which site it happened."""
    policy = GaussianPolicy(1, 1, hidden=())

    def program(policy: Policy, explosion: float) -> None:
        with pyro.plate("episodes", 2):
            state = torch.zeros(2, 1)
            for t in range(5):
                action = ppgrad.policy(f"a_{t}", policy(state))
                ppgrad.reward(f"r_{t}", -action.square().sum(-1))
                state = state + action * (explosion if t == 2 else 1.0)

    objective = ExpectedReturn(estimator, num_particles=num_particles)
    ppgrad.gradient(objective, program, args=(policy, 1.0), seed=0)
    with pytest.raises(NonFinite, match=r"GaussianPolicy: the features are .* at index \(0, 0\), after site 'r_2'"):
        ppgrad.gradient(objective, program, args=(policy, INF), seed=0)


@pytest.mark.parametrize("num_particles", [1, 2])
def test_a_gradient_that_is_not_finite_names_the_parameter(num_particles: int) -> None:
    """A cost may be finite where its gradient is not; the step after it, the policy says so."""
    policy = GaussianPolicy(1, 1)

    def program(policy: Policy) -> None:
        with pyro.plate("n", 3):
            action = ppgrad.policy("a", policy(torch.ones(3, 1)))
            ppgrad.reward("r", -(action - action.detach()).abs().sqrt().sum(-1))

    loss = ExpectedReturn(Pathwise(), num_particles=num_particles)
    svi = pyro.infer.SVI(program, None, pyro.optim.SGD({"lr": 0.1}), loss=loss)
    svi.step(policy)
    with pytest.raises(
        NonFinite, match=r"GaussianPolicy: parameter 'network.0.weight' is nan at index \(0, 0\)\. Lower"
    ):
        svi.step(policy)
