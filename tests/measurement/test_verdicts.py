"""Verdicts of bias: within their level for rare events, heavy tails and tiny gradients; and a bias is still found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import ppgrad
from ppgrad import DisARM, ExpectedReturn, LeaveOneOut, LocalExpectation, ScoreFunction, StraightThrough
from ppgrad.analysis import describe, smallest_bias_found
from ppgrad.core import Draw, Estimator, Memory, Problem, Signal
from ppgrad.engine.program.program import program_of
from ppgrad.measurement import ready
from ppgrad.measurement.gradient import pure
from ppgrad.measurement.rare import outcomes, unseen_by
from ppgrad.measurement.replicates import replicate
from ppgrad.objectives import Objective
from ppgrad.testing import SUITE_FAILURE_RATE, all_problems
from ppgrad.testing.problems import parameters

REPLICATES, BLOCKS = 500, 400
LEVELS = (0.05, 0.01, 1e-3)

Program = Callable[[], None]


def categorical(last: float) -> Program:
    """A policy that has learned: its third action has probability near exp(last) / 2."""

    def program() -> None:
        k = ppgrad.policy("k", dist.Categorical(logits=parameters({"l": [0.3, -0.4, last]})["l"]))
        ppgrad.reward("r", torch.tensor([1.0, 3.0, -2.0])[k])

    return program


def bernoulli(logit: float, elements: int = 1) -> Program:
    def program() -> None:
        logits = parameters({"l": logit})["l"].expand(elements)
        b = ppgrad.policy("b", dist.Bernoulli(logits=logits).to_event(1))
        ppgrad.reward("r", (b.sum(-1) - 0.3) ** 2)

    return program


def two_rare_sites() -> None:
    """Each value is drawn often, both together rarely, and then they decide."""
    p = parameters({"l": [-3.5, -3.5]})["l"]
    a = ppgrad.policy("a", dist.Bernoulli(logits=p[0]))
    b = ppgrad.policy("b", dist.Bernoulli(logits=p[1]))
    ppgrad.reward("r", 1000 * a * b + a)


def constant() -> None:
    """The gradient is 0; in single precision it is rounding."""
    ppgrad.policy("k", dist.Categorical(logits=parameters({"l": [0.3, -0.4, -1.0]})["l"]))
    ppgrad.reward("r", torch.tensor(1.3))


def saturated() -> None:
    """Gradients of 1e-8 beside numbers of size 1."""
    k = ppgrad.policy("k", dist.Categorical(logits=parameters({"l": [9.0, -9.0]})["l"]))
    ppgrad.reward("r", torch.tensor([0.7, 0.7])[k])


PROGRAMS: dict[str, Program] = {
    "categorical_1e-8": categorical(-18.0),
    "categorical_6e-5": categorical(-9.0),
    "categorical_1e-3": categorical(-6.0),
    "categorical_1e-2": categorical(-4.0),
    "bernoulli_5e-4": bernoulli(-7.6),
    "bernoulli_3e-3": bernoulli(-5.8),
    "bernoulli_2e-2": bernoulli(-4.0),
    "four_bernoullis": bernoulli(-5.8, 4),
    "two_rare_sites": two_rare_sites,
    "constant": constant,
    "saturated": saturated,
}
SCORE, LEAVE_ONE_OUT = ScoreFunction(), ScoreFunction(LeaveOneOut())
RARE = [(name, estimator) for name in PROGRAMS for estimator in (SCORE, LEAVE_ONE_OUT, LocalExpectation())]
RARE += [(name, DisARM()) for name in PROGRAMS if "bernoulli" in name or "two" in name]
EASY = ("bernoulli_chain", "coupled_plate", "categoricals", "binomial", "mixed", "sequential_plate", "discrete_elbo")
EASY += ("normal_plate", "log_normal", "gamma", "poisson", "geometric", "importance_discrete", "nested_events")
FAILURE_RATE = SUITE_FAILURE_RATE / (len(RARE) + len(EASY)) / (len(LEVELS) + 1)


def blocks(objective: Objective, problem: Problem, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """p-values and whether the band holds 0, up to rounding: shape (blocks, components) each."""
    where = (problem.model, problem.guide, problem.args, {})
    exact = ppgrad.exact_gradient(objective, *where) if problem.exact is None else problem.exact()
    known = outcomes(objective, *where, seed)
    with pure(seed, program_of(*where)):
        prepared = ready(objective, *where)
        found = replicate(objective, prepared, REPLICATES * BLOCKS, seed, None)
    unseen = unseen_by(prepared, known, REPLICATES)
    magnitude = float(found.losses.abs().double().mean())
    p_values, holds = [], []
    for start in range(0, len(found.losses), REPLICATES):
        row: list[np.ndarray] = []
        band: list[np.ndarray] = []
        for name, draws in found.draws.items():
            one = describe(
                draws[start : start + REPLICATES].numpy(),
                exact[name].detach().numpy(),
                unseen=None if unseen is None else unseen[name],
                magnitude=magnitude,
            )
            row.append(one.p_value.ravel())
            rounding = 1e-5 * (1 + np.abs(exact[name].detach().numpy()))
            band.append(((one.bias_low <= rounding) & (one.bias_high >= -rounding)).ravel())
        p_values.append(np.concatenate(row))
        holds.append(np.concatenate(band))
    return np.array(p_values), np.array(holds)


def check_calibrated(p_values: np.ndarray, holds: np.ndarray) -> None:
    """No component is below a level more often than the level says, nor its band off more often than 5 times in 100."""
    rate = FAILURE_RATE / p_values.shape[1]
    for component in range(p_values.shape[1]):
        for level in LEVELS:
            below = int((p_values[:, component] < level).sum())
            assert stats.binomtest(below, len(p_values), level, "greater").pvalue > rate, (component, level, below)
        outside = int((~holds[:, component]).sum())
        assert stats.binomtest(outside, len(holds), 0.05, "greater").pvalue > rate, (component, outside)


@pytest.mark.parametrize(("name", "estimator"), RARE, ids=[f"{n}-{e!r}" for n, e in RARE])
def test_rare_events_and_tiny_gradients_are_no_bias(name: str, estimator: Estimator) -> None:
    particles = 2 if estimator == LEAVE_ONE_OUT else 1
    objective = ExpectedReturn(estimator, num_particles=particles)
    check_calibrated(*blocks(objective, Problem(PROGRAMS[name], ExpectedReturn, name), 3))


@pytest.mark.parametrize("name", EASY)
def test_problems_are_calibrated(name: str) -> None:
    problem = all_problems()[name]
    objective = problem.objective(ScoreFunction(), **problem.options)
    check_calibrated(*blocks(objective, problem, 4))


@pytest.mark.parametrize("tail", ["exponential", "lognormal", "pareto", "two_sided"])
def test_skewed_and_heavy_tails_are_no_bias(tail: str) -> None:
    generator = np.random.default_rng(11)
    draw = {
        "exponential": (lambda size: generator.exponential(size=size), 1.0),
        "lognormal": (lambda size: generator.lognormal(0, 1, size=size), np.exp(0.5)),
        "pareto": (lambda size: generator.pareto(4, size=size), 1 / 3),
        "two_sided": (lambda size: generator.standard_t(3, size=size), 0.0),
    }[tail]
    found = describe(draw[0]((2000, 1000)), np.full(1000, draw[1]))
    check_calibrated(found.p_value[:, None], ((found.bias_low <= 0) & (found.bias_high >= 0))[:, None])


@dataclass(frozen=True)
class TenPercentTooLarge(ScoreFunction):
    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return 1.1 * super().surrogate(draw, signal, memory)


PLANTED = [(TenPercentTooLarge(LeaveOneOut()), name) for name in ("bernoulli_chain", "categoricals", "coupled_plate")]


@pytest.mark.parametrize(("estimator", "name"), [*PLANTED, (StraightThrough(), "coupled_plate")])
def test_a_bias_is_found_all_the_same(estimator: Estimator, name: str) -> None:
    problem = all_problems()[name]
    objective = problem.objective(estimator, num_particles=2)
    found = ppgrad.compare({"planted": objective}, problem.model, replicates=20_000, reference=problem.exact())
    assert found.totals().loc["planted", "verdict"] == "found"


def test_a_bias_beside_a_rare_action_is_found() -> None:
    objectives = {"planted": ExpectedReturn(TenPercentTooLarge(LeaveOneOut()), num_particles=2)}
    found = ppgrad.compare(objectives, PROGRAMS["categorical_6e-5"], replicates=20_000)
    assert list(found.summary()["verdict"]) == ["found", "found", "inconclusive"]
    assert found.totals().loc["planted", "verdict"] == "found"


@pytest.mark.parametrize("estimator", [SCORE, LEAVE_ONE_OUT], ids=repr)
def test_a_rare_action_is_inconclusive_in_words(estimator: Estimator) -> None:
    objective = {"score": ExpectedReturn(estimator, num_particles=2)}
    found = ppgrad.compare(objective, PROGRAMS["categorical_1e-8"], replicates=500)
    assert list(found.summary()["verdict"]) == ["none found", "none found", "inconclusive"]
    row = found.totals().loc["score"]
    assert row["verdict"] == "inconclusive"
    assert row["p_value"] > 1e-3
    assert any("inconclusive for l[2]: 500 replicates" in sentence for sentence in found.sentences())
    one = ppgrad.measure(objective["score"], PROGRAMS["categorical_1e-8"], replicates=500)
    assert one.inconclusive["l"].tolist() == [False, False, True]


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3), (4, 2)], ids=str)
def test_the_outcomes_of_a_cost_are_values_of_what_it_depends_on(sizes: tuple[int, int]) -> None:
    def program() -> None:
        for name, size in zip("ab", sizes, strict=True):
            logits = parameters({f"l_{name}": [0.5 * i for i in range(size)]})[f"l_{name}"]
            k = ppgrad.policy(name, dist.Categorical(logits=logits))
            ppgrad.reward(f"r_{name}", torch.arange(1.0, size + 1)[k])

    known = outcomes(ExpectedReturn(ScoreFunction()), program, None, (), {}, 0)
    assert known is not None
    for place, size in enumerate(sizes):
        expected = torch.softmax(0.5 * torch.arange(size), 0)
        np.testing.assert_allclose(known.probability[known.cost == place], expected, rtol=1e-5)


def test_enumeration_is_conclusive_of_rare_actions() -> None:
    program = PROGRAMS["categorical_6e-5"]
    found = ppgrad.compare({"exact": ExpectedReturn(ppgrad.Enumerate())}, program, replicates=50)
    assert found.totals().loc["exact", "verdict"] == "none found"


@pytest.mark.parametrize("deviation", [0.3, 3.0])
def test_the_smallest_bias_found_is_found_so_often(deviation: float) -> None:
    generator = np.random.default_rng(12)
    replicates, trials, level = 50, 20_000, 1e-3
    bias = float(smallest_bias_found(deviation / replicates**0.5, replicates, level))
    found = describe(generator.normal(bias, deviation, (replicates, trials)), np.zeros(trials)).p_value < level
    assert stats.binomtest(int(found.sum()), trials, 0.999).pvalue > FAILURE_RATE


def test_smallest_bias_refuses() -> None:
    with pytest.raises(ValueError, match="level=2"):
        smallest_bias_found(1.0, 10, level=2)


def rare_beside_poisson(logit: float) -> Problem:
    """A Poisson draw beside a rare value: too many outcomes to sum over."""

    def program() -> None:
        p = parameters({"l": logit, "rate": 1.0})
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["l"]))
        n = ppgrad.policy("n", dist.Poisson(p["rate"]))
        ppgrad.reward("r", 10 * b + n)

    return Problem(program, ExpectedReturn, "rare, with an infinite support")


@pytest.mark.parametrize("logit", [-9.0, -7.0, -6.0])
def test_a_long_run_knows_what_the_replicates_lack(logit: float) -> None:
    model, seeds = rare_beside_poisson(logit).model, 30
    objective = {"score": ExpectedReturn(ScoreFunction())}
    found = [ppgrad.compare(objective, model, replicates=500, seed=seed).totals() for seed in range(seeds)]
    assert found[0].attrs["least"] == "score"
    below = sum(int(table.loc["score", "p_value"] < 1e-3) for table in found)
    assert stats.binomtest(below, seeds, 1e-3, "greater").pvalue > FAILURE_RATE


def test_a_noisy_reference_is_said_to_be_one() -> None:
    def program() -> None:
        a = parameters({"a": 2.0})["a"]
        ppgrad.cost("f", 100 + ppgrad.policy("x", dist.Gamma(a, 1.0)))

    found = ppgrad.compare({"pathwise": ExpectedReturn(ppgrad.Pathwise())}, program, replicates=1000)
    assert any("The reference is noisier than pathwise" in sentence for sentence in found.sentences())


def test_a_step_is_timed_alone() -> None:
    model = all_problems()["coupled_plate"].model
    objectives = {"score": ExpectedReturn(ScoreFunction()), "disarm": ExpectedReturn(DisARM())}
    table = ppgrad.compare(objectives, model, replicates=1000).totals()
    assert (table["seconds_per_step"] > 3 * table["seconds_per_replicate"]).all()
    assert (table["seconds"] == table["seconds_per_replicate"]).all()
    np.testing.assert_allclose(table["work_variance"], table["variance"] * table["seconds_per_step"])
    assert ppgrad.measure(objectives["score"], model, replicates=1000).seconds_per_step > 0
