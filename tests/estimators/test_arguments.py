"""Arguments out of range, or of another kind: one line that names the argument and says what to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    ARM,
    REBAR,
    RELAX,
    BestOf,
    Constant,
    CVaR,
    DisARM,
    DoubleControlVariate,
    EntropicRisk,
    ExpectedReturn,
    GumbelSoftmax,
    Interpolated,
    InvalidAssignment,
    InvalidInput,
    InvalidProgram,
    InverseVariance,
    KLRegularized,
    MaxEntReturn,
    MeasureValued,
    MovingAverage,
    MuProp,
    Pathwise,
    PerContext,
    QuasiMonteCarlo,
    RenyiELBO,
    Rodeo,
    ScoreFunction,
    Unsupported,
)
from ppgrad.testing.problems import parameters

NAN, INF = float("nan"), float("inf")

NUMBERS: dict[str, Callable[[Any], object]] = {
    "EntropicRisk(beta=": lambda x: EntropicRisk(beta=x),
    "EntropicRisk(discount=": lambda x: EntropicRisk(discount=x),
    "RenyiELBO(alpha=": lambda x: RenyiELBO(alpha=x),
    "MaxEntReturn(temperature=": lambda x: MaxEntReturn(temperature=x),
    "CVaR(level=": lambda x: CVaR(level=x),
    "CVaR(discount=": lambda x: CVaR(discount=x),
    "BestOf(discount=": lambda x: BestOf(discount=x),
    "ExpectedReturn(discount=": lambda x: ExpectedReturn(discount=x),
    "KLRegularized(coefficient=": lambda x: KLRegularized(reference={}, coefficient=x),
    "KLRegularized(discount=": lambda x: KLRegularized(reference={}, discount=x),
    "REBAR(eta=": lambda x: REBAR(eta=x),
    "DoubleControlVariate(eta=": lambda x: DoubleControlVariate(eta=x),
    "Constant(": lambda x: Constant(x),
    "MovingAverage(decay=": lambda x: MovingAverage(x),
    "PerContext(decay=": lambda x: PerContext(3, decay=x),
    "Interpolated(alpha=": lambda x: Interpolated(x),
}


@pytest.mark.parametrize("value", [NAN, INF, -INF, "a", None, True, [0.5]], ids=repr)
@pytest.mark.parametrize("call", NUMBERS)
def test_what_is_no_finite_number_is_refused(call: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refusal:
        NUMBERS[call](value)
    message = str(refusal.value)
    assert message.startswith(call + repr(value)), message
    assert "Write " in message
    assert "\n" not in message


@pytest.mark.parametrize("coupled", ["no", 1, None])
def test_what_is_no_truth_value_is_refused(coupled: Any) -> None:
    with pytest.raises(InvalidInput, match="coupled is True or False"):
        MeasureValued(coupled=coupled)
    with pytest.raises(InvalidInput, match="hard is True or False"):
        GumbelSoftmax(hard=coupled)
    with pytest.raises(InvalidInput, match="exact is True or False"):
        MaxEntReturn(exact=coupled)


def test_an_open_interval_is_written_as_one() -> None:
    with pytest.raises(InvalidInput, match=r"PerContext\(decay=1.0\): decay lies in \[0, 1\). Write"):
        PerContext(3, decay=1.0)


Make = Callable[..., object]


@pytest.mark.parametrize("owner", [Interpolated, InverseVariance])
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"score": Pathwise()}, r"score=Pathwise\(\).*score is an instance of ScoreFunction"),
        ({"score": ScoreFunction}, "score is an instance of ScoreFunction"),
        ({"score": DisARM()}, "score is an instance of ScoreFunction"),
        ({"pathwise": ScoreFunction()}, r"pathwise=ScoreFunction\(\).*Write .*pathwise=Pathwise\(\)"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:20],
)
def test_parts_in_each_others_place_are_refused(owner: Make, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidAssignment, match=message):
        owner(**parts)


@pytest.mark.parametrize("owner", [ScoreFunction, Pathwise])
@pytest.mark.parametrize("draws", ["sobol", QuasiMonteCarlo, 3])
def test_draws_are_an_instance(owner: Make, draws: Any) -> None:
    with pytest.raises(InvalidAssignment, match=r"draws=.*write Antithetic\(\) or QuasiMonteCarlo\(\)"):
        owner(draws=draws)


def bernoulli() -> None:
    z = ppgrad.policy("z", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
    ppgrad.cost("f", (z - 0.4) ** 2)


def test_a_site_is_named_by_text() -> None:
    with pytest.raises(InvalidAssignment, match=r"sites=\{1: …\}: a site is named by text"):
        ExpectedReturn(sites={1: DisARM()})  # type: ignore[dict-item]


def test_a_network_of_another_width_is_refused_with_the_site() -> None:
    with pytest.raises(InvalidProgram, match=r"control variate of site 'z' cannot take its input of shape \(2,\)"):
        ppgrad.gradient(ExpectedReturn(RELAX(torch.nn.Linear(3, 1))), bernoulli, seed=0)
    with pytest.raises(InvalidProgram, match=r"control variate of site 'z' cannot take its input of shape \(2,\)"):
        ppgrad.measure(ExpectedReturn(RELAX(torch.nn.Linear(3, 1))), bernoulli, replicates=10)


@pytest.mark.parametrize("estimator", [REBAR(), MuProp(), DoubleControlVariate(), Rodeo()], ids=repr)
def test_an_index_cuts_the_slope(estimator: ppgrad.Estimator) -> None:
    def program(paid: bool) -> None:
        z = ppgrad.policy("z", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        table = torch.tensor([1.0, 2.0]).index_select(0, z.long().reshape(1)).squeeze(0)
        ppgrad.cost("f", table + parameters({"w": 0.5})["w"] * float(paid))

    for paid in (False, True):
        for call in (ppgrad.gradient, ppgrad.measure):
            with pytest.raises(Unsupported, match=r"site 'z'.*no gradient path leads from it(.|\n)*LocalExpectation"):
                call(ExpectedReturn(estimator, num_particles=2), program, args=(paid,))


@pytest.mark.parametrize("estimator", [REBAR(), MuProp(), DoubleControlVariate(), Rodeo()], ids=repr)
def test_a_value_may_act_through_a_later_score_alone(estimator: ppgrad.Estimator) -> None:
    def program() -> None:
        z = ppgrad.policy("z", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        x = ppgrad.policy("x", dist.Bernoulli(logits=3 * z - 1))
        ppgrad.cost("f", (x - 0.2) ** 2)

    found = ppgrad.measure(ExpectedReturn(ScoreFunction(), sites={"z": estimator}, num_particles=2), program)
    assert found.reference_kind == "exact"
    assert float(found.p_value["logit"]) > 1e-8


@pytest.mark.parametrize("estimator", [REBAR(), MuProp(), ARM()], ids=repr)
def test_what_vmap_cannot_carry_runs_in_a_loop(estimator: ppgrad.Estimator, caplog: pytest.LogCaptureFixture) -> None:
    """A branch that fails under vmap alone is no program that takes no value between."""

    def program() -> None:
        z = ppgrad.policy("z", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        if 0 < float(z.detach()) < 1:
            pass
        ppgrad.cost("f", (z - 0.4) ** 2 + z)

    for particles in (1, 2):
        found = ppgrad.measure(ExpectedReturn(estimator, num_particles=particles), program, replicates=200)
        assert float(found.p_value["logit"]) > 1e-8
    assert "runs in a loop" in caplog.text


def test_coalescent_times_are_measured() -> None:
    """A distribution of Pyro whose batch shape is a plain tuple."""

    def program() -> None:
        rate = parameters({"rate": 0.9})["rate"]
        ppgrad.cost("f", ppgrad.policy("x", dist.CoalescentTimes(torch.tensor([0.0, 0.1, 0.2]), rate)).sum())

    found = ppgrad.measure(ExpectedReturn(ScoreFunction()), program, replicates=20)
    assert bool(torch.isfinite(found.mean["rate"]))
