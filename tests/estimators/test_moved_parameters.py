"""Finite differences, SPSA, evolution strategies: exact biased means, rebuilt distributions, noise, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import ppgrad
from ppgrad import (
    SPSA,
    Estimator,
    EvolutionStrategies,
    ExpectedReturn,
    FiniteDifference,
    InvalidInput,
    ScoreFunction,
    Unsupported,
)
from ppgrad.core.parameters import not_rebuildable, parameters, rebuilt, unconstrained
from ppgrad.measurement import measure
from ppgrad.testing import SUITE_FAILURE_RATE, Case, all_problems, check_float64, check_pure
from ppgrad.testing.problems import parameters as program_parameters

FAILURE_RATE = SUITE_FAILURE_RATE / 1000
FAMILY = [FiniteDifference(), SPSA(), SPSA(pairs=3), EvolutionStrategies(), EvolutionStrategies(pairs=3)]
MU, SIGMA = 0.4, 0.7


def quadratic() -> None:
    p = program_parameters({"mu": MU, "sigma": SIGMA})
    ppgrad.cost("f", ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"])) ** 2)


def p_values(estimator: Estimator, model: Callable[[], None], reference: dict[str, Tensor]) -> dict[str, float]:
    result = measure(ExpectedReturn(estimator), model, replicates=100_000, reference=reference)
    found = {}
    for name in reference:
        gap = (torch.as_tensor(result.bias[name]).abs() - 1e-4).clamp(min=0)  # rounding of differences over 2h
        z = gap / torch.as_tensor(result.mcse[name]).clamp(min=1e-12)
        found[name] = float(2 * stats.norm.sf(z.numpy()).min())
    return found


def smoothed(estimator: Estimator) -> float:
    """What exp(2s) is multiplied with beyond 2, where its derivative is estimated."""
    if isinstance(estimator, EvolutionStrategies):
        return math.exp(2 * estimator.scale**2)
    step = estimator.step
    return math.sinh(2 * step) / (2 * step)


@pytest.mark.parametrize("estimator", [FiniteDifference(0.6), SPSA(0.6), EvolutionStrategies(0.4)], ids=repr)
def test_a_large_step_is_biased_by_just_as_much_as_it_must_be(estimator: Estimator) -> None:
    """E x² = μ² + exp(2 log σ): exact in μ at any step, in log σ the difference of exponentials."""
    biased = {"mu": torch.tensor(-2 * MU), "sigma": torch.tensor(-2 * SIGMA * smoothed(estimator))}
    assert min(p_values(estimator, quadratic, biased).values()) > FAILURE_RATE
    exact = biased | {"sigma": torch.tensor(-2 * SIGMA)}
    found = p_values(estimator, quadratic, exact)
    assert found["mu"] > FAILURE_RATE
    assert found["sigma"] < FAILURE_RATE


@pytest.mark.parametrize("estimator", [FiniteDifference(0.01), SPSA(0.01), EvolutionStrategies(0.01)], ids=repr)
def test_a_small_step_hides_its_bias(estimator: Estimator) -> None:
    exact = {"mu": torch.tensor(-2 * MU), "sigma": torch.tensor(-2 * SIGMA)}
    assert min(p_values(estimator, quadratic, exact).values()) > FAILURE_RATE


@pytest.mark.parametrize("step", [0.02, 0.5])
def test_a_bernoulli_is_its_central_difference(step: float) -> None:
    def program() -> None:
        b = ppgrad.policy("b", dist.Bernoulli(program_parameters({"p": 0.3})["p"]))
        ppgrad.cost("f", 2 * b)

    logit, slope = math.log(0.3 / 0.7), 1 / (0.3 * 0.7)
    up, down = (1 / (1 + math.exp(-logit - sign * step)) for sign in (1, -1))
    reference = {"p": torch.tensor(-2 * slope * (up - down) / (2 * step))}
    assert p_values(FiniteDifference(step), program, reference)["p"] > FAILURE_RATE


def test_a_bound_that_moves() -> None:
    """x ~ U(0, θ), f = x: ½, where the score function alone would say −½."""

    def program() -> None:
        ppgrad.reward("r", ppgrad.policy("x", dist.Uniform(0.0, program_parameters({"theta": 1.5})["theta"])))

    assert p_values(FiniteDifference(0.01), program, {"theta": torch.tensor(0.5)})["theta"] > FAILURE_RATE


def test_common_noise_keeps_the_variance_of_a_smooth_cost_bounded() -> None:
    variances = [
        float(measure(ExpectedReturn(FiniteDifference(step)), quadratic, replicates=2_000).variance["mu"])
        for step in (0.5, 0.05)
    ]
    assert variances[1] == pytest.approx(variances[0], rel=0.01)
    assert variances[0] < 8 * SIGMA**2


@pytest.mark.parametrize("estimator", FAMILY, ids=repr)
def test_alternatives_are_drawn_aside(estimator: Estimator) -> None:
    """A rejection sampler takes more or less noise with other parameters; what comes later does not notice."""
    seen: list[tuple[float, float]] = []

    def program() -> None:
        p = program_parameters({"rate": 0.4})
        x = ppgrad.policy("x", dist.Gamma(p["rate"], 1.0))
        y = pyro.sample("y", dist.Normal(0.0, 1.0))
        seen.append((float(x.detach()), float(y)))
        ppgrad.cost("f", x + y)

    objective, plain = ExpectedReturn(sites={"x": estimator}), ExpectedReturn(sites={"x": ScoreFunction()})
    objective.prepare(program)
    plain.prepare(program)
    for seed in range(10):
        seen.clear()
        ppgrad.gradient(objective, program, seed=seed)
        drawn, *branches = seen
        assert {y for _, y in branches} == {drawn[1]}
        assert drawn[0] not in {x for x, _ in branches}
        if isinstance(estimator, FiniteDifference):
            seen.clear()
            ppgrad.gradient(plain, program, seed=seed)
            assert seen == [drawn]


@pytest.mark.parametrize("estimator", FAMILY, ids=repr)
@pytest.mark.parametrize("name", ["bernoulli_chain", "coupled_plate", "masked", "normal_vectors", "poisson", "one_hot"])
def test_conformance(estimator: Estimator, name: str) -> None:
    case = Case(estimator, name, all_problems()[name])
    check_pure(case)
    check_float64(case)


@pytest.mark.parametrize(
    ("estimator", "branches"),
    [(FiniteDifference(), 4), (SPSA(), 2), (SPSA(pairs=3), 6), (EvolutionStrategies(pairs=2), 4)],
    ids=repr,
)
def test_branches(estimator: Estimator, branches: int) -> None:
    assert measure(ExpectedReturn(estimator), quadratic, replicates=2).evaluations == 1 + branches


T = torch.tensor
DISTRIBUTIONS = {
    "Normal": dist.Normal(T([0.3, -1.0]), T(0.7)),
    "Independent": dist.Normal(torch.zeros(3, 2), T([0.5, 2.0])).to_event(1),
    "mask": dist.Normal(torch.zeros(3), 1.0).mask(T([True, False, True])),
    "ExpandedDistribution": dist.torch_distribution.ExpandedDistribution(dist.Normal(0.3, 0.7), torch.Size([3])),
    "Bernoulli": dist.Bernoulli(probs=T([0.2, 0.9])),
    "Categorical": dist.Categorical(probs=T([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])),
    "OneHotCategorical": dist.OneHotCategorical(logits=torch.randn(2, 3)).to_event(1),
    "Binomial": dist.Binomial(T([2.0, 5.0]), probs=T(0.3)),
    "Multinomial": dist.Multinomial(4, probs=T([0.2, 0.8])),
    "MultivariateNormal": dist.MultivariateNormal(torch.ones(2), covariance_matrix=T([[2.0, 0.5], [0.5, 1.0]])),
    "plate of vectors": dist.MultivariateNormal(torch.randn(3, 2), scale_tril=torch.eye(2)),
    "LowRankMultivariateNormal": dist.LowRankMultivariateNormal(torch.zeros(3), torch.randn(3, 1), torch.ones(3)),
    "Dirichlet": dist.Dirichlet(T([0.5, 1.0, 2.0])),
    "Gamma": dist.Gamma(2.0, T([1.0, 3.0])),
    "Uniform": dist.Uniform(T([-1.0, 0.0]), T(2.0)),
    "LogNormal": dist.LogNormal(0.2, 0.5),
    "StudentT": dist.StudentT(5.0, 0.3, 1.0),
    "RelaxedBernoulli": dist.RelaxedBernoulli(T(0.5), logits=T([0.2, -0.3])),
    "ZeroInflatedPoisson": dist.ZeroInflatedPoisson(T([1.0, 2.0]), gate=T(0.3)),
    "LKJCholesky": dist.LKJCholesky(3, T(1.5)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_is_rebuilt(name: str) -> None:
    fn = DISTRIBUTIONS[name]
    assert not_rebuildable(fn) is None
    numbers = unconstrained(fn)
    other = rebuilt(fn, numbers)
    assert other.shape() == fn.shape()
    value = fn.sample()
    assert torch.isfinite(numbers).all()
    log_prob = other.log_prob(value)
    if name == "mask":
        log_prob = log_prob * T([1.0, 0.0, 1.0])
    extra = log_prob.dim() - len(fn.batch_shape)
    log_prob = log_prob.sum([*range(-extra, 0)]) if extra else log_prob
    assert torch.allclose(log_prob, fn.log_prob(value), atol=1e-4, rtol=1e-4)
    moved = rebuilt(fn, numbers + 0.1)
    invariant = name in ("Categorical", "Multinomial", "OneHotCategorical")  # to a constant added to the logits
    assert torch.allclose(moved.log_prob(value), other.log_prob(value)) == invariant
    for tensor, constraint in parameters(fn).values():
        assert bool(constraint.check(tensor).all())


def test_logits_and_factors_are_what_is_moved() -> None:
    assert set(parameters(DISTRIBUTIONS["Bernoulli"])) == {"logits"}
    assert set(parameters(DISTRIBUTIONS["MultivariateNormal"])) == {"loc", "scale_tril"}
    assert set(parameters(DISTRIBUTIONS["Binomial"])) == {"logits"}
    assert set(parameters(DISTRIBUTIONS["ZeroInflatedPoisson"])) == {"rate", "gate_logits"}
    assert unconstrained(DISTRIBUTIONS["MultivariateNormal"]).shape == (5,)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (
            lambda t: dist.MixtureSameFamily(dist.Categorical(logits=t * T([0.0, 1.0])), dist.Normal(T([0.0, 1.0]), 1)),
            "MixtureSameFamily has no named parameters to move",
        ),
        (
            lambda t: dist.TransformedDistribution(dist.Normal(t, 1.0), [dist.transforms.ExpTransform()]),
            "TransformedDistribution has no named parameters to move",
        ),
        (lambda t: dist.RelaxedBernoulli(t.exp(), logits=t), "RelaxedBernoulli is built from more.*'temperature'"),
        (
            lambda t: dist.SineSkewed(dist.VonMises(t, T(1.0)).expand([1]).to_event(1), T([0.1])),
            "SineSkewed is built from more.*'base_dist'",
        ),
        (lambda t: dist.Poisson(t.exp() * 0), "a parameter of Poisson lies on the border"),
    ],
)
@pytest.mark.parametrize("estimator", [FiniteDifference(), SPSA(), EvolutionStrategies()], ids=repr)
def test_what_cannot_be_rebuilt_is_refused(estimator: Estimator, fn, message: str) -> None:
    def program() -> None:
        ppgrad.reward("r", ppgrad.policy("x", fn(program_parameters({"t": 0.3})["t"])).sum())

    with pytest.raises(Unsupported, match=f"{type(estimator).__name__} cannot serve site 'x': {message}"):
        ppgrad.gradient(ExpectedReturn(estimator), program, seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FiniteDifference(0.0), r"FiniteDifference\(step=0.0\).*Write FiniteDifference\(step="),
        (lambda: FiniteDifference(-1), r"FiniteDifference\(step=-1\)"),
        (lambda: FiniteDifference(math.nan), r"FiniteDifference\(step=nan\)"),
        (lambda: SPSA(step=math.inf), r"SPSA\(step=inf\).*Write SPSA\(step="),
        (lambda: SPSA(pairs=0), r"SPSA\(pairs=0\).*Write SPSA\(pairs=1\)"),
        (lambda: EvolutionStrategies(scale=0), r"EvolutionStrategies\(scale=0\)"),
        (lambda: EvolutionStrategies(pairs=1.5), r"EvolutionStrategies\(pairs=1.5\)"),
    ],
)
def test_bad_input(make: Callable[[], Estimator], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
