"""Estimators of discrete sites against moments that are enumerated here, apart from the library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import ppgrad
from ppgrad import (
    ARM,
    DisARM,
    Draw,
    Estimator,
    ExpectedReturn,
    InvalidInput,
    LocalExpectation,
    MeasureValued,
    Signal,
    StochasticPerturbation,
    SumAndSample,
    UnorderedSet,
)
from ppgrad.measurement import measure
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters

FAILURE_RATE = SUITE_FAILURE_RATE / 1000
REPLICATES = 200_000
LOGITS = [0.6, -0.4, 1.3, -1.0]
COSTS = [1.0, -0.5, 2.0, 4.0]
WEIGHTED = tuple[float, Tensor]
"""The probability of an outcome, and the estimate that it leads to."""


def moments(outcomes: Iterable[WEIGHTED]) -> tuple[Tensor, Tensor]:
    """The mean and the variance of an estimate."""
    chances, estimates = zip(*outcomes, strict=True)
    weights, values = torch.tensor(chances, dtype=torch.float64), torch.stack(estimates).double()
    assert float(weights.sum()) == pytest.approx(1)
    mean = torch.tensordot(weights, values, 1)
    return mean, torch.tensordot(weights, (values - mean) ** 2, 1)


def check(estimator: Estimator, model: Callable[[], None], name: str, outcomes: Iterable[WEIGHTED]) -> None:
    """Mean and variance of the descent direction are those of the outcomes, by z tests."""
    mean, variance = moments(outcomes)
    result = measure(ExpectedReturn(estimator), model, replicates=REPLICATES, reference={name: -mean.float()})
    found, error = result.variance[name], result.variance_mcse[name]
    tests = [
        (torch.as_tensor(result.mean[name]) + mean, (variance / REPLICATES).sqrt()),
        (torch.as_tensor(found) - variance, torch.as_tensor(error)),
    ]
    for difference, standard_error in tests:
        rounding = 1e-5 * (1 + mean.abs() + variance)
        z = (difference.abs() - rounding).clamp(min=0) / standard_error.clamp(min=1e-12)
        p_values = 2 * stats.norm.sf(z.double().numpy())
        assert (p_values > FAILURE_RATE / p_values.size).all(), f"{estimator}: {difference} ± {standard_error}"


def categorical() -> None:
    x = ppgrad.policy("x", dist.Categorical(logits=parameters({"logits": LOGITS})["logits"]))
    ppgrad.cost("f", (torch.tensor(COSTS) * 1.0).index_select(0, x.reshape(1)).squeeze(0))


def probabilities() -> tuple[Tensor, Tensor]:
    """The probabilities, and the Jacobian of the probabilities in the logits."""
    p = torch.tensor(LOGITS, dtype=torch.float64).softmax(-1)
    return p, torch.diag(p) - torch.outer(p, p)


def exact() -> Tensor:
    _, jacobian = probabilities()
    return torch.tensor(COSTS, dtype=torch.float64) @ jacobian


def sum_and_sample(k: int) -> list[WEIGHTED]:
    p, jacobian = probabilities()
    f = torch.tensor(COSTS, dtype=torch.float64)
    order = p.argsort(descending=True)
    top, tail = order[:k], order[k:]
    b = (p[top] * f[top]).sum() / p[top].sum()
    head = ((f[top] - b).unsqueeze(-1) * jacobian[top]).sum(0)
    mass = p[tail].sum()
    return [(float(p[t] / mass), head + mass * (f[t] - b) * jacobian[t] / p[t]) for t in tail]


@pytest.mark.parametrize("k", [1, 2])
def test_sum_and_sample(k: int) -> None:
    assert torch.allclose(moments(sum_and_sample(k))[0], exact())
    check(SumAndSample(k), categorical, "logits", sum_and_sample(k))


def chance_in_order(p: Tensor, order: tuple[int, ...]) -> float:
    left, chance = 1.0, 1.0
    for i in order:
        chance, left = chance * float(p[i]) / left, left - float(p[i])
    return chance


def chance_of_set(p: Tensor, members: tuple[int, ...]) -> float:
    return sum(chance_in_order(p, order) for order in itertools.permutations(members))


def without(p: Tensor, s: int) -> Tensor:
    q = p.clone()
    q[s] = 0
    return q / q.sum()


def unordered_set(k: int) -> list[WEIGHTED]:
    p, jacobian = probabilities()
    outcomes = []
    for members in itertools.combinations(range(4), k):
        estimate = torch.zeros(4, dtype=torch.float64)
        for s in members:
            others = tuple(i for i in members if i != s)
            ratio = chance_of_set(without(p, s), others) / chance_of_set(p, members)
            baseline = float(p[s]) * COSTS[s]
            for t in others:
                rest = tuple(i for i in others if i != t)
                second = chance_of_set(without(without(p, s), t), rest) / chance_of_set(without(p, s), others)
                baseline += float(p[t]) * second * COSTS[t]
            estimate += jacobian[s] * ratio * (COSTS[s] - baseline)
        outcomes.append((chance_of_set(p, members), estimate))
    return outcomes


@pytest.mark.parametrize("k", [2, 3])
def test_unordered_set(k: int) -> None:
    assert torch.allclose(moments(unordered_set(k))[0], exact())
    check(UnorderedSet(k), categorical, "logits", unordered_set(k))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_unordered_set_is_unbiased_exactly(k: int) -> None:
    """Its own surrogate, summed over every set with its probability."""
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    log_p, p = logits.log_softmax(-1), logits.detach().softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for members in itertools.combinations(range(4), k):
        chosen = torch.tensor(members)
        rest = 1 - p[chosen].sum()
        extras = {"log_probs": log_p[chosen].reshape(1, 1, k), "rest": rest.clamp(min=0).log().reshape(1, 1)}
        costs = torch.tensor(COSTS, dtype=torch.float64)[chosen].reshape(k, 1, 1)
        draw = Draw("x", chosen[0].reshape(1, 1), log_p[chosen[0]].reshape(1, 1), frozenset(), extras=extras)
        signal = Signal({}, frozenset(), alternatives=costs[1:], base=costs[0])
        total = total + chance_of_set(p, members) * UnorderedSet(k).surrogate(draw, signal, {}).sum()
    (found,) = torch.autograd.grad(total, logits)
    assert torch.allclose(found, exact(), atol=1e-9)


def antithetic_sticks(weight: Callable[[float, int, int], float]) -> list[WEIGHTED]:
    """DisARM of the sticks of three categories, over the joint outcomes of a pair of two sticks."""
    logits = torch.tensor(LOGITS[:3], dtype=torch.float64, requires_grad=True)
    sticks = torch.stack([logits[0] - logits[1:].logsumexp(0), logits[1] - logits[2]])
    jacobian = torch.stack([torch.autograd.grad(stick, logits, retain_graph=True)[0] for stick in sticks])
    chances = []
    for p in torch.sigmoid(sticks.detach()).tolist():
        one = min(p, 1 - p)
        chances.append({(1, 1): max(0.0, 2 * p - 1), (0, 0): max(0.0, 1 - 2 * p), (1, 0): one, (0, 1): one})
    outcomes = []
    for first, second in itertools.product(*chances):
        x, y = (next((i for i, b in enumerate(row) if b), 2) for row in zip(first, second, strict=True))
        estimate = torch.zeros(3, dtype=torch.float64)
        for k, (b, twin) in enumerate((first, second)):
            if k <= max(x, y):
                estimate += weight(float(sticks[k].detach()), b, twin) * (COSTS[x] - COSTS[y]) * jacobian[k]
        outcomes.append((chances[0][first] * chances[1][second], estimate))
    return outcomes


def one_hot() -> None:
    x = ppgrad.policy("x", dist.OneHotCategorical(logits=parameters({"logits": LOGITS[:3]})["logits"]))
    ppgrad.cost("f", x @ (torch.tensor(COSTS[:3]) * 1.0))


def test_disarm_of_three_categories() -> None:
    def weight(phi: float, b: int, twin: int) -> float:
        return 0.5 * (b != twin) * (-1) ** twin / (1 + math.exp(-abs(phi)))

    outcomes = antithetic_sticks(weight)
    p = torch.tensor(LOGITS[:3], dtype=torch.float64).softmax(-1)
    f = torch.tensor(COSTS[:3], dtype=torch.float64)
    assert torch.allclose(moments(outcomes)[0], p * (f - (p * f).sum()))
    check(DisARM(), one_hot, "logits", outcomes)
    assert (measured_variance(ARM(), one_hot, "logits") > moments(outcomes)[1]).all()


def measured_variance(estimator: Estimator, model: Callable[[], None], name: str) -> Tensor:
    result = measure(ExpectedReturn(estimator), model, replicates=20_000, reference={name: torch.zeros(3)})
    return torch.as_tensor(result.variance[name])


def perturbation(logits: Tensor, log_probs: Callable[[Tensor], Tensor], f: Tensor) -> list[WEIGHTED]:
    """Over the values 0 … n − 1; the distribution function and its derivative by autograd."""
    leaf = logits.clone().requires_grad_()
    p = log_probs(leaf).exp()
    cdf = p.cumsum(0)
    slopes = torch.stack([torch.autograd.grad(each, leaf, retain_graph=True)[0] for each in cdf])
    p = p.detach()
    outcomes = []
    for x in range(len(p)):
        estimate = torch.zeros_like(logits)
        for k in (x - 1, x):
            if 0 <= k < len(p) - 1:
                estimate = estimate - slopes[k] * (f[k + 1] - f[k]) / (p[k] + p[k + 1])
        outcomes.append((float(p[x]), estimate))
    return outcomes


def counts(make: Callable[[Tensor], dist.TorchDistribution], initial: float) -> Callable[[], None]:
    def model() -> None:
        n = ppgrad.policy("n", make(parameters({"theta": initial})["theta"]))
        ppgrad.cost("f", (n - 1.5) ** 2)

    return model


SQUARES = (torch.arange(60, dtype=torch.float64) - 1.5) ** 2
COUNTS: dict[str, tuple[Callable[[Tensor], dist.TorchDistribution], float, int]] = {
    "Bernoulli": (lambda t: dist.Bernoulli(logits=t), 0.7, 2),
    "Binomial": (lambda t: dist.Binomial(torch.full_like(t, 3.0), logits=t), 0.4, 4),
    "Binomial at logit 0": (lambda t: dist.Binomial(torch.full_like(t, 3.0), logits=t), 0.0, 4),
    "Poisson": (lambda t: dist.Poisson(t), 1.4, 16),
    "Geometric": (lambda t: dist.Geometric(logits=t), 0.5, 60),
    "Geometric at logit 0": (lambda t: dist.Geometric(logits=t), 0.0, 60),
}


@pytest.mark.parametrize("name", COUNTS)
def test_stochastic_perturbation_of_counts(name: str) -> None:
    make, initial, size = COUNTS[name]
    theta = torch.tensor(initial, dtype=torch.float64)
    f = SQUARES[:size]
    outcomes = perturbation(theta, lambda t: make(t).log_prob(torch.arange(size, dtype=torch.float64)), f)
    leaf = theta.clone().requires_grad_()
    expectation = (make(leaf).log_prob(torch.arange(size, dtype=torch.float64)).exp() * f).sum()
    assert torch.allclose(moments(outcomes)[0], torch.autograd.grad(expectation, leaf)[0])
    check(StochasticPerturbation(), counts(make, initial), "theta", outcomes)


def test_stochastic_perturbation_of_a_categorical() -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    outcomes = perturbation(logits, lambda t: t.log_softmax(-1), torch.tensor(COSTS, dtype=torch.float64))
    assert torch.allclose(moments(outcomes)[0], exact())
    check(StochasticPerturbation(), categorical, "logits", outcomes)


@pytest.mark.parametrize(
    "estimator",
    [SumAndSample(3), SumAndSample(9), UnorderedSet(4), UnorderedSet(8), LocalExpectation(), MeasureValued()],
    ids=repr,
)
def test_all_values_leave_no_variance(estimator: Estimator) -> None:
    for seed in range(5):
        found = ppgrad.gradient(ExpectedReturn(estimator), categorical, seed=seed)["logits"]
        assert torch.allclose(found, -exact().float(), atol=1e-5)


FAMILY = [
    LocalExpectation(), SumAndSample(1), SumAndSample(2), UnorderedSet(2), UnorderedSet(3), UnorderedSet(5), DisARM(),
    ARM(), MeasureValued(), MeasureValued(coupled=False), StochasticPerturbation(),
]  # fmt: skip


@pytest.mark.parametrize("estimator", FAMILY, ids=repr)
@pytest.mark.parametrize("possible", [1, 2, 3])
def test_values_that_cannot_happen(estimator: Estimator, possible: int) -> None:
    """Logits of −∞, as masks of actions have them, get no gradient, and the others a finite one."""

    def program() -> None:
        free = parameters({"logits": LOGITS[:possible]})["logits"]
        logits = torch.cat([free, torch.full((5 - possible,), -math.inf)])
        x = ppgrad.policy("x", dist.Categorical(logits=logits))
        ppgrad.cost("f", (torch.tensor([*COSTS, 7.0]) * 1.0).index_select(0, x.reshape(1)).squeeze(0))

    p = torch.tensor(LOGITS[:possible]).softmax(-1)
    f = torch.tensor(COSTS[:possible])
    objective = ExpectedReturn(estimator, num_particles=3)
    result = measure(objective, program, replicates=5_000, reference={"logits": -p * (f - (p * f).sum())})
    assert torch.isfinite(torch.as_tensor(result.draws["logits"])).all()
    gap = torch.as_tensor(result.bias["logits"]).abs() - 1e-5
    error = torch.as_tensor(result.mcse["logits"]).clamp(min=1e-12)
    assert (2 * stats.norm.sf(gap.clamp(min=0) / error) > FAILURE_RATE).all()


@pytest.mark.parametrize("estimator", FAMILY, ids=repr)
def test_a_single_category(estimator: Estimator) -> None:
    def program() -> None:
        x = ppgrad.policy("x", dist.Categorical(logits=parameters({"logits": [0.3]})["logits"]))
        ppgrad.cost("f", x + 1.0)

    assert torch.equal(ppgrad.gradient(ExpectedReturn(estimator), program, seed=0)["logits"], torch.zeros(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SumAndSample(0), r"SumAndSample\(k=0\).*Write SumAndSample\(k=1\)"),
        (lambda: SumAndSample(1.5), r"SumAndSample\(k=1.5\)"),
        (lambda: UnorderedSet(1), r"UnorderedSet\(k=1\).*Write UnorderedSet\(k=2\)"),
        (lambda: UnorderedSet(9), r"UnorderedSet\(k=9\).*Write UnorderedSet\(k=8\)"),
        (lambda: UnorderedSet(True), r"UnorderedSet\(k=True\)"),
    ],
)
def test_sizes_out_of_range(make: Callable[[], Estimator], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


@pytest.mark.parametrize("estimator", [LocalExpectation(), SumAndSample(), UnorderedSet()], ids=repr)
def test_binomials_of_different_counts_are_refused(estimator: Estimator) -> None:
    def program() -> None:
        p = parameters({"logit": 0.2})
        with pyro.plate("elements", 2):
            n = ppgrad.policy("n", dist.Binomial(torch.tensor([2.0, 3.0]), logits=p["logit"]))
            ppgrad.cost("f", n)

    with pytest.raises(ppgrad.Unsupported, match="different total counts"):
        ppgrad.gradient(ExpectedReturn(estimator), program, seed=0)
    assert torch.isfinite(ppgrad.gradient(ExpectedReturn(StochasticPerturbation()), program, seed=0)["logit"])
