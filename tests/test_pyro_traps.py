"""The traps of Pyro that this package exists to close; numbers as in the reference page."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch

import ppgrad
from ppgrad import ELBO, Enumerate, ExpectedReturn, LeaveOneOut, Pathwise, ScoreFunction
from ppgrad.core import Problem
from ppgrad.measurement import measure
from ppgrad.testing import SUITE_FAILURE_RATE, Case, check_mean
from ppgrad.testing.problems import closed_form, parameters

FAILURE_RATE = SUITE_FAILURE_RATE / 100


def flip(x: torch.Tensor) -> torch.Tensor:
    return 3.0 * x - 1.0


@pytest.mark.parametrize("breaker", ["item", "numpy", "buffer", "branch"])
def test_1_broken_provenance_keeps_its_gradient(breaker: str, caplog: pytest.LogCaptureFixture) -> None:
    """TraceGraph_ELBO returns 0 here; the true value is 3 p (1 − p) = 0.75 at p = ½."""

    def model() -> None:
        p = parameters({"logit": 0.0})
        z = ppgrad.policy("z", dist.Bernoulli(logits=p["logit"]))
        if breaker == "item":
            value = torch.tensor(3.0 * z.item() - 1.0)
        elif breaker == "numpy":
            value = torch.from_numpy(np.asarray(3.0 * z.numpy() - 1.0))
        elif breaker == "buffer":
            buffer = torch.zeros(1)
            buffer[0] = flip(z)
            value = buffer[0]
        else:
            value = torch.tensor(2.0 if z > 0 else -1.0)
        ppgrad.reward("r", value)

    exact = closed_form({"logit": 0.0}, lambda p: 3 * torch.sigmoid(p["logit"]))
    assert exact()["logit"] == pytest.approx(0.75)
    case = Case(ScoreFunction(LeaveOneOut()), breaker, Problem(model, ExpectedReturn, "", exact=exact))
    check_mean(case, FAILURE_RATE, replicates=1000)
    assert ("runs in a loop" in caplog.text) == (breaker != "buffer" or "loop" in caplog.text)


def test_1_baselines_are_read() -> None:
    """Trace_ELBO ignores ``infer["baseline"]``; here a good constant takes the variance away."""

    def model(baseline: dict[str, object] | None) -> None:
        p = parameters({"logit": 0.3})
        infer = {} if baseline is None else {"baseline": baseline}
        z = ppgrad.policy("z", dist.Bernoulli(logits=p["logit"]), infer=infer)
        ppgrad.reward("r", 100.0 + z)

    objective = ExpectedReturn(ScoreFunction())
    plain = measure(objective, model, args=(None,), replicates=4000)
    based = measure(objective, model, args=({"baseline_value": torch.tensor(100.5)},), replicates=4000)
    assert based.variance["logit"] < 1e-3 * plain.variance["logit"]
    q = torch.sigmoid(torch.tensor(0.3)) * torch.sigmoid(torch.tensor(-0.3))
    assert abs(based.mean["logit"] - q) / based.mcse["logit"] < 5.5


@pytest.mark.parametrize("wrap", ["mask_false", "mask_tensor", "poutine"])
def test_3_a_mask_leaves_the_score_alone(wrap: str) -> None:
    def model() -> None:
        p = parameters({"mu": 0.5})
        fn = dist.Normal(p["mu"], 1.0)
        if wrap == "mask_false":
            x = ppgrad.policy("x", fn.mask(False))
        elif wrap == "mask_tensor":
            x = ppgrad.policy("x", fn.mask(torch.tensor(False)))
        else:
            with poutine.mask(mask=False):
                x = ppgrad.policy("x", fn)
        ppgrad.reward("r", x)

    exact = closed_form({"mu": 0.5}, lambda p: p["mu"])
    check_mean(Case(ScoreFunction(), wrap, Problem(model, ExpectedReturn, "", exact=exact)), FAILURE_RATE)


def test_4_cached_transforms_keep_the_gradient() -> None:
    def model() -> None:
        p = parameters({"mu": 0.2, "log_scale": -0.3})
        affine = dist.transforms.AffineTransform(p["mu"], p["log_scale"].exp(), cache_size=1)
        fn = dist.TransformedDistribution(dist.Normal(torch.tensor(0.0), 1.0), [affine])
        ppgrad.cost("f", ppgrad.policy("x", fn) ** 2)

    initial = {"mu": 0.2, "log_scale": -0.3}
    exact = closed_form(initial, lambda p: -(p["mu"] ** 2) - (2 * p["log_scale"]).exp())
    check_mean(Case(ScoreFunction(), "affine", Problem(model, ExpectedReturn, "", exact=exact)), FAILURE_RATE)


def test_4_a_transform_without_inverse_is_refused() -> None:
    planar = dist.transforms.Planar(2)

    def model() -> None:
        pyro.module("planar", planar)
        fn = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [planar])
        ppgrad.cost("f", (ppgrad.policy("x", fn) ** 2).sum())

    with pytest.raises(ppgrad.Unsupported, match=r"'x'.*cannot be evaluated"):
        ppgrad.gradient(ExpectedReturn(ScoreFunction()), model)
    assert any(g.abs().sum() > 0 for g in ppgrad.gradient(ExpectedReturn(Pathwise()), model, seed=0).values())


def test_5_has_rsample_is_never_touched() -> None:
    fn = dist.Normal(torch.tensor(0.5, requires_grad=True), 1.0)

    def model(fn: dist.Normal) -> None:
        ppgrad.reward("r", ppgrad.policy("x", fn.expand([2]).to_event(1)).sum())

    ppgrad.gradient(ExpectedReturn(ScoreFunction()), model, args=(fn,), seed=0)
    assert fn.has_rsample
    assert "has_rsample" not in vars(fn)


def test_6_pathwise_without_a_path_warns_and_is_strict() -> None:
    def model() -> None:
        p = parameters({"mu": 0.5})
        x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0))
        ppgrad.reward("r", (x > 0).float())

    with pytest.warns(ppgrad.NoGradientPath, match=r"'x'.*ScoreFunction"):
        assert ppgrad.gradient(ExpectedReturn(Pathwise()), model, seed=0)["mu"] == 0
    with pytest.raises(ppgrad.Unsupported, match=r"'x'.*ScoreFunction"):
        ppgrad.gradient(ExpectedReturn(Pathwise(), strict=True), model, seed=0)


def test_6_a_black_box_likelihood_in_an_elbo_is_no_false_alarm() -> None:
    """The prior is a path, so the density of the site itself does not hide one that is missing."""

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    def guide() -> None:
        pyro.sample("z", dist.Normal(parameters({"m": 0.5})["m"], 1.0))

    ppgrad.gradient(ELBO(Pathwise(), strict=True), model, guide, seed=0)


def test_8_an_event_in_place_of_a_plate_costs_variance_not_bias() -> None:
    k = torch.linspace(-1, 1, 16)

    def plate() -> None:
        p = parameters({"mu": 0.5})
        with pyro.plate("n", 16):
            x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0))
            ppgrad.cost("f", (x - k) ** 2)

    def event() -> None:
        p = parameters({"mu": 0.5})
        x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0).expand([16]).to_event(1))
        ppgrad.cost("f", ((x - k) ** 2).sum())

    exact = closed_form({"mu": 0.5}, lambda p: -((p["mu"] - k) ** 2).sum())
    variances = {}
    for name, model in (("plate", plate), ("event", event)):
        check_mean(Case(ScoreFunction(), name, Problem(model, ExpectedReturn, "", exact=exact)), FAILURE_RATE)
        variances[name] = measure(ExpectedReturn(ScoreFunction()), model, replicates=4000).variance["mu"]
    assert variances["event"] > 5 * variances["plate"]


def test_9_a_factor_in_a_guide_must_say_how_it_was_drawn() -> None:
    def model() -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide(has_rsample: bool | None) -> None:
        pyro.sample("z", dist.Normal(parameters({"m": 0.5})["m"], 1.0))
        pyro.factor("f", torch.tensor(0.1), has_rsample=has_rsample)

    with pytest.raises(ValueError, match=r'"f".*has_rsample'):
        ppgrad.gradient(ELBO(), model_taking(model), guide, args=(None,))
    ppgrad.gradient(ELBO(), model_taking(model), guide, args=(True,), seed=0)


def model_taking(model):
    return lambda _: model()


def test_9_an_unreparameterized_factor_is_a_score() -> None:
    """z drawn by hand from a Bernoulli, its log q given as a factor."""

    def draw(p: torch.Tensor) -> torch.Tensor:
        return (torch.rand(()) < torch.sigmoid(p)).float()

    def model() -> None:
        pass

    def guide() -> None:
        p = parameters({"logit": 0.4})["logit"]
        z = draw(p.detach())
        pyro.factor("q", dist.Bernoulli(logits=p).log_prob(z), has_rsample=False)
        ppgrad.reward("r", 2.0 * z)

    def bound(p):
        q = torch.sigmoid(p["logit"])
        return 2 * q - q * q.log() - (1 - q) * (1 - q).log()

    problem = Problem(model, ELBO, "", guide, exact=closed_form({"logit": 0.4}, bound))
    check_mean(Case(Pathwise(), "factor", problem), FAILURE_RATE)


@pytest.mark.parametrize("jump", [None, Enumerate(), ScoreFunction(LeaveOneOut())], ids=repr)
def test_10_random_transitions_have_credit(jump: ppgrad.Estimator | None) -> None:
    from ppgrad.testing.problems.structured import random_transition

    problem = random_transition()
    objective = ExpectedReturn(Pathwise(), sites={"jump": jump or ScoreFunction()}, num_particles=2)
    result = measure(objective, problem.model, replicates=20_000, reference=problem.exact())
    assert result.p_value["mu"] > FAILURE_RATE
