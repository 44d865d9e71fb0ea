"""Baselines that run the program, that are calibrated, that keep a table."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    DeltaMethod,
    ExpectedReturn,
    LeaveOneOut,
    MaxEntReturn,
    MovingAverage,
    OptimalConstant,
    Pathwise,
    PerContext,
    ScoreFunction,
    SelfCritical,
    Unsupported,
    exact_gradient,
    measure,
)
from ppgrad.core import Draw, Signal
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters

D, SIGMA = 0.6, 0.8


def quadratic() -> None:
    p = parameters({"mu": D, "sigma": SIGMA})
    ppgrad.cost("f", ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"])) ** 2)


def test_the_optimal_constant_is_the_closed_form() -> None:
    """b* = Σ E[f s²] / Σ E[s²] over μ and σ: (1 · (d² + 3σ²) + 2 (d² + 5σ²)) / 3."""
    objective = ExpectedReturn(ScoreFunction(OptimalConstant()))
    found = []
    for seed in range(40):
        objective.memory.clear()
        objective._since_calibration = 0
        pyro.set_rng_seed(seed)
        objective.loss_and_grads(quadratic, None)
        found.append(float(objective.memory["x"]["constant"]))
    values = torch.tensor(found)
    expected = ((D**2 + 3 * SIGMA**2) + 2 * (D**2 + 5 * SIGMA**2)) / 3
    error = float(values.std()) / len(found) ** 0.5
    assert abs(float(values.mean()) - expected) < 6 * error + 0.05 * expected  # a ratio of means, from 256 runs


def test_the_delta_method_is_the_mean_of_a_quadratic() -> None:
    """f = x²: ½ [f(m + σ) + f(m − σ)] = m² + σ² whatever the signs, so that its variance is that of the mean."""
    result = measure(ExpectedReturn(ScoreFunction(DeltaMethod())), quadratic, replicates=400_000)
    for name, variance in {"mu": 8 * D**2 + 10 * SIGMA**2, "sigma": 40 * D**2 + 56 * SIGMA**2}.items():
        assert abs(float(result.variance[name]) - variance) < 5.5 * float(result.variance_mcse[name])


def test_the_delta_method_knows_a_full_covariance() -> None:
    torch.manual_seed(0)
    tril = torch.tensor([[1.0, 0.0], [0.8, 0.3]])
    fn = dist.MultivariateNormal(torch.tensor([0.5, -0.3]), scale_tril=tril).expand([20_000])
    away = DeltaMethod().references(fn)[0] - fn.mean
    torch.testing.assert_close(away.T @ away / len(away), tril @ tril.T, atol=0.03, rtol=0)
    torch.testing.assert_close(DeltaMethod().references(fn).mean(0), fn.mean)


def test_the_self_critical_baseline_is_the_cost_at_the_mode() -> None:
    """A Categorical at its mode: the advantage is 0 whenever the mode is drawn."""

    def program() -> None:
        p = parameters({"logits": [9.0, 0.0, 0.0]})
        z = ppgrad.policy("z", dist.Categorical(logits=p["logits"]))
        ppgrad.reward("r", torch.tensor([3.0, 1.0, 2.0])[z])

    gradients = [ppgrad.gradient(ExpectedReturn(ScoreFunction(SelfCritical())), program, seed=s) for s in range(5)]
    assert all(bool((g["logits"] == 0).all()) for g in gradients)


def test_a_table_of_contexts_learns_each_mean() -> None:
    means = torch.tensor([5.0, -3.0, 10.0])

    def program() -> None:
        p = parameters({"logits": [0.0, 0.0, 0.0]})
        index = torch.arange(3)
        with pyro.plate("n", 3):
            b = ppgrad.policy("b", dist.Bernoulli(logits=p["logits"]), context=index)
            ppgrad.reward("r", means + b)

    objective = ExpectedReturn(ScoreFunction(PerContext(3)))
    pyro.set_rng_seed(0)
    plain = measure(ExpectedReturn(ScoreFunction()), program, replicates=2000)
    for _ in range(100):
        objective.loss_and_grads(program, None)
    memory = objective.memory["b"]
    torch.testing.assert_close(-memory["average"] / memory["weight"], means + 0.5, atol=0.6, rtol=0)
    assert float(measure(objective, program, replicates=2000).variance["logits"].sum()) < 0.05 * float(
        plain.variance["logits"].sum()
    )


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, "integer context"),
        (torch.tensor([0.0, 1.0]), "integer context"),
        (torch.tensor([[0, 1]]), "one index for each element"),
        (torch.tensor([0, 7]), r"PerContext\(8\)"),
    ],
    ids=str,
)
def test_a_context_that_is_no_index_is_refused(context, message: str) -> None:
    def program() -> None:
        p = parameters({"logits": [0.0, 0.0]})
        with pyro.plate("n", 2):
            ppgrad.reward("r", ppgrad.policy("b", dist.Bernoulli(logits=p["logits"]), context=context))

    with pytest.raises(Unsupported, match=message):
        ppgrad.gradient(ExpectedReturn(ScoreFunction(PerContext(2))), program, seed=0)


def test_exact_entropy_has_the_gradient_of_the_sampled_one() -> None:
    def program() -> None:
        p = parameters({"logits": [0.5, -0.2, 0.1], "sigma": 0.7})
        z = ppgrad.policy("z", dist.Categorical(logits=p["logits"]))
        x = ppgrad.policy("x", dist.Normal(z.to(torch.get_default_dtype()), p["sigma"]))
        ppgrad.reward("r", -(x**2))

    reference = exact_gradient(MaxEntReturn(temperature=0.5), program)
    for exact in (False, True):
        result = measure(MaxEntReturn(temperature=0.5, exact=exact), program, replicates=20_000, reference=reference)
        assert all(bool((p > 1e-7).all()) for p in result.p_value.values())


def test_an_entropy_that_has_no_closed_form_is_refused() -> None:
    def program() -> None:
        p = parameters({"rate": 2.0})
        ppgrad.reward("r", ppgrad.policy("n", dist.Poisson(p["rate"])))

    with pytest.raises(ppgrad.InvalidProgram, match=r"site 'n'|Site 'n'.*exact=False"):
        ppgrad.gradient(MaxEntReturn(ScoreFunction(), exact=True), program, seed=0)
    ppgrad.gradient(MaxEntReturn(Pathwise(), exact=True), quadratic, seed=0)


def signal_of(value: torch.Tensor) -> Signal:
    return Signal({frozenset(): value}, frozenset())


def draw_of(value: torch.Tensor, context: torch.Tensor | None = None) -> Draw:
    return Draw("x", value, torch.zeros_like(value), frozenset(), context=context)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_a_moving_average_of_equal_costs_is_that_cost_from_the_first_on(decay: float) -> None:
    baseline, memory = MovingAverage(decay), {}
    signal = signal_of(torch.full((2, 1), 5.0))
    for _ in range(3):
        memory = baseline.update(draw_of(signal.value), signal, memory)
        torch.testing.assert_close(baseline.predict(draw_of(signal.value), signal, memory), torch.tensor(5.0))


def test_a_table_has_the_mean_of_a_context_that_several_draws_share() -> None:
    baseline, values = PerContext(3), torch.tensor([[1.0], [3.0], [10.0]])
    draw = draw_of(values, torch.tensor([[0], [0], [2]]))
    memory = baseline.update(draw, signal_of(values), {})
    torch.testing.assert_close(baseline.predict(draw, signal_of(values), memory), torch.tensor([[2.0], [2.0], [10.0]]))


@pytest.mark.parametrize("size", [2, 3])
def test_the_others_of_a_plate_say_nothing_of_a_cost_that_they_share(size: int) -> None:
    """What the elements cost together depends on each one's own draw, so that it is in no other's baseline."""

    def program() -> None:
        p = parameters({"p": 0.3})["p"]
        with pyro.plate("n", size):
            x = ppgrad.policy("x", dist.Bernoulli(logits=p))
            ppgrad.cost("own", x)
        ppgrad.cost("shared", x.sum() ** 2)

    found = measure(ExpectedReturn(ScoreFunction(LeaveOneOut(over="n"))), program, replicates=20_000)
    assert found.reference_kind == "exact"
    assert float(found.p_value["p"]) > SUITE_FAILURE_RATE
