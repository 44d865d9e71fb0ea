"""Each row of the table of mistakes: the error names the site and what to write instead."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    ELBO,
    Critic,
    Enumerate,
    ExpectedReturn,
    InvalidAssignment,
    InvalidInput,
    InvalidProgram,
    LeaveOneOut,
    MovingAverage,
    NonFinite,
    Pathwise,
    ScoreFunction,
    Unsupported,
)
from ppgrad.testing.problems import parameters


def model(value: float = 1.0, infer: dict[str, object] | None = None) -> None:
    p = parameters({"mu": 0.5, "logit": 0.1})
    with pyro.plate("n", 2):
        x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0), infer=infer)
        k = ppgrad.policy("k", dist.Categorical(logits=torch.stack([p["logit"], -p["logit"]])))
        ppgrad.reward("r", x * k * value)


@pytest.mark.parametrize(
    ("objective", "error", "words"),
    [
        (lambda: ExpectedReturn(sites={"z*": Pathwise()}), InvalidAssignment, ["'z*'", "k, x"]),
        (
            lambda: ExpectedReturn(sites={"x*": Pathwise(), "*": ScoreFunction()}),
            InvalidAssignment,
            ["'x'", "'x*'", "'*'"],
        ),
        (
            lambda: ExpectedReturn(Pathwise()),
            Unsupported,
            ["'k'", "Categorical", "ScoreFunction()", "Enumerate()", "LocalExpectation()"],
        ),
        (
            lambda: ExpectedReturn(sites={"x": Enumerate()}),
            Unsupported,
            ["'x'", "Normal", "ScoreFunction()", "Pathwise()", "or"],
        ),
        (lambda: ExpectedReturn(Pathwise), InvalidAssignment, ["Pathwise()"]),
        (lambda: ExpectedReturn(gamma=0.9), InvalidInput, ["ExpectedReturn(gamma=…)", "Write discount"]),
        (lambda: ExpectedReturn(num_particle=2), InvalidInput, ["Write num_particles"]),
        (lambda: ExpectedReturn(wrong=2), InvalidInput, ["wrong", "estimator, discount, sites"]),
        (lambda: ExpectedReturn(sites={"x": ScoreFunction}), InvalidAssignment, ["'x'", "ScoreFunction()"]),
        (lambda: ExpectedReturn(sites=lambda m: Pathwise), InvalidAssignment, ["'x'", "Pathwise()"]),
        (lambda: ExpectedReturn("score"), InvalidAssignment, ["'score'", "ScoreFunction()"]),
        (lambda: ExpectedReturn(ScoreFunction(LeaveOneOut())), Unsupported, ["'x'", "num_particles=2", "over='n'"]),
        (lambda: ExpectedReturn(ScoreFunction(LeaveOneOut("m"))), Unsupported, ["'x'", "'m'", "n"]),
        (lambda: ExpectedReturn(ScoreFunction(Critic(torch.nn.Linear(1, 1)))), Unsupported, ["'x'", "context="]),
        (lambda: ExpectedReturn(num_particles=0), InvalidInput, ["num_particles=0"]),
        (lambda: ExpectedReturn(discount=1.5), InvalidInput, ["discount=1.5"]),
        (lambda: ExpectedReturn(sites={"k": Enumerate()}, max_branches=1), InvalidInput, ["'k'", "max_branches"]),
    ],
)
def test_objective(objective, error, words) -> None:
    with pytest.raises(error) as raised:
        ppgrad.gradient(objective(), model, seed=0)
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) <= 2
    assert not list(pyro.get_param_store())


@pytest.mark.parametrize(
    ("infer", "words"),
    [
        ({"baseline": {"use_decaying_avg": True}}, ["'x'", "'use_decaying_avg'", "use_decaying_avg_baseline"]),
        ({"baseline": {"baseline_beta": 0.9}}, ["'x'", "baseline_beta"]),
        ({"baseline": {"nn_baseline": torch.nn.Linear(1, 1)}}, ["'x'", "nn_baseline_input"]),
        (
            {"baseline": {"use_decaying_avg_baseline": True}, "gradient": Pathwise()},
            ["'x'", "does not read", "ScoreFunction()"],
        ),
        (
            {"baseline": {"use_decaying_avg_baseline": True}, "gradient": ScoreFunction(MovingAverage())},
            ["'x'", "Remove one"],
        ),
        ({"gradient": ScoreFunction}, ["'x'", "ScoreFunction()"]),
    ],
)
def test_site(infer, words) -> None:
    with pytest.raises(InvalidAssignment) as raised:
        ppgrad.gradient(ExpectedReturn(sites={"k": ScoreFunction()}), model, args=(1.0, infer), seed=0)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_a_pyro_baseline_on_a_default_pathwise_site_is_an_error() -> None:
    infer = {"baseline": {"use_decaying_avg_baseline": True}}
    with pytest.raises(InvalidAssignment, match=r"'x'.*Pathwise\(\) does not read"):
        ppgrad.gradient(ExpectedReturn(), model, args=(1.0, infer), seed=0)


def test_no_reward() -> None:
    def silent() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(InvalidProgram, match=r"no reward site.*x.*ppgrad.reward"):
        ppgrad.gradient(ExpectedReturn(), silent)


@pytest.mark.parametrize("objective", [ExpectedReturn(), ExpectedReturn(num_particles=4)], ids=["one", "many"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_reward(objective: ExpectedReturn, value: float) -> None:
    with pytest.raises(NonFinite, match=r"'r' is -?(nan|inf)"):
        ppgrad.gradient(objective, model, args=(value,), seed=0)


@pytest.mark.parametrize("parameter", ["loc", "scale"])
@pytest.mark.parametrize("bad", [float("nan"), -1.0, float("inf")])
@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()], ids=repr)
def test_nonfinite_parameter(parameter: str, bad: float, estimator: ppgrad.Estimator) -> None:
    if parameter == "loc" and bad == -1.0:
        return
    values = {"loc": 0.0, "scale": 1.0} | {parameter: bad}

    def program() -> None:
        p = parameters(values)
        ppgrad.reward("r", ppgrad.policy("x", dist.Normal(p["loc"], p["scale"])))

    with pytest.raises(NonFinite, match=f"'x'.*'{parameter}' of Normal is {bad:g}"):
        ppgrad.gradient(ExpectedReturn(estimator), program, seed=0)


def test_numbers_that_turn_bad_later() -> None:
    """The validated run was fine; the next one is not."""
    objective = ExpectedReturn(Pathwise(), sites={"k": ScoreFunction()}, num_particles=3)
    ppgrad.gradient(objective, model, args=(torch.tensor(1.0),), seed=0)
    with pytest.raises(NonFinite, match="'r' is nan"):
        ppgrad.gradient(objective, model, args=(torch.tensor(float("nan")),), seed=0)
    with pytest.raises(NonFinite, match="'r' is nan"):
        ppgrad.measure(
            objective,
            model,
            args=(torch.tensor(float("nan")),),
            reference={"mu": torch.tensor(0.0), "logit": torch.tensor(0.0)},
        )


def test_masked_actions_are_fine() -> None:
    def program() -> None:
        p = parameters({"logit": 0.3})
        mask = torch.tensor([0.0, 0.0, -float("inf")])
        k = ppgrad.policy("k", dist.Categorical(logits=torch.stack([p["logit"], -p["logit"], p["logit"]]) + mask))
        ppgrad.reward("r", k.float())

    for estimator in (ScoreFunction(), Enumerate()):
        assert torch.isfinite(ppgrad.gradient(ExpectedReturn(estimator), program, seed=0)["logit"])


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 1)])
def test_reward_shape(shape: tuple[int, ...]) -> None:
    def program() -> None:
        with pyro.plate("n", 2):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            ppgrad.reward("r", torch.zeros(shape) + x.sum())

    with pytest.raises(InvalidProgram, match=r"'r'.*'n' of size 2"):
        ppgrad.gradient(ExpectedReturn(), program)


def test_two_sites_of_one_name() -> None:
    def program() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(RuntimeError, match="Multiple sample sites named 'x'"):
        ppgrad.gradient(ExpectedReturn(), program)


def test_a_guide_site_missing_in_the_model() -> None:
    def guide() -> None:
        pyro.sample("y", dist.Normal(parameters({"m": 0.0})["m"], 1.0))

    def empty() -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.warns(ppgrad.NoGradientPath), pytest.warns(UserWarning, match="Found") as caught:
        ppgrad.gradient(ELBO(), empty, guide, seed=0)
    text = " ".join(str(w.message) for w in caught)
    assert "Found non-auxiliary vars in guide but not model" in text
    assert "Found vars in model but not guide" in text


def test_batched_without_a_plate_gets_pyros_error() -> None:
    def program() -> None:
        x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0))
        ppgrad.reward("r", x.sum())

    with pytest.raises(ValueError, match="invalid log_prob shape"):
        ppgrad.gradient(ExpectedReturn(), program)


def test_elbo_without_a_guide() -> None:
    with pytest.raises(InvalidProgram, match="ELBO needs a guide"):
        ppgrad.gradient(ELBO(), model)


def test_a_tensor_without_a_name() -> None:
    class Opaque:
        __slots__ = ("tensor",)

    holder = Opaque()
    holder.tensor = torch.tensor(0.5, requires_grad=True)

    def program(holder: Opaque) -> None:
        ppgrad.reward("r", ppgrad.policy("x", dist.Normal(holder.tensor, 1.0)))

    with pytest.raises(InvalidProgram, match="has no name"):
        ppgrad.gradient(ExpectedReturn(), program, args=(holder,))


def test_moving_support() -> None:
    def program() -> None:
        theta = parameters({"theta": 2.0})["theta"]
        ppgrad.reward("r", ppgrad.policy("x", dist.Uniform(0.0, theta)))

    with pytest.raises(Unsupported, match=r"'x'.*support of Uniform moves.*\n.*Pathwise\(\)"):
        ppgrad.gradient(ExpectedReturn(ScoreFunction()), program)
    exact = {"theta": torch.tensor(0.5)}
    assert ppgrad.measure(ExpectedReturn(Pathwise()), program, reference=exact).p_value["theta"] > 1e-7


@pytest.mark.parametrize("replicates", [1, 0, -5, 2.5, True])
def test_replicates(replicates: object) -> None:
    with pytest.raises(InvalidInput, match="replicates"):
        ppgrad.measure(ExpectedReturn(sites={"k": ScoreFunction()}), model, replicates=replicates)


def test_chunk_size_and_reference() -> None:
    objective = ExpectedReturn()
    for wrong in (0, 1.5, True, "a"):
        with pytest.raises(InvalidInput, match="chunk_size is an integer from 1 up"):
            ppgrad.measure(objective, model, chunk_size=wrong)
    with pytest.raises(InvalidInput, match="lacks parameter 'logit'"):
        ppgrad.measure(objective, model, reference={"mu": torch.tensor(0.0)})
    with pytest.raises(InvalidInput, match="'mu' has shape"):
        ppgrad.measure(objective, model, reference={"mu": torch.zeros(2), "logit": torch.tensor(0.0)})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ppgrad.gradient(Pathwise(), model), "An objective is needed"),
        (lambda: ppgrad.gradient(ExpectedReturn, model), "An objective is needed"),
        (lambda: ppgrad.exact_gradient(Pathwise(), model), "An objective is needed"),
        (lambda: ppgrad.compare(ExpectedReturn(), model), "label: objective"),
        (lambda: ppgrad.gradient(ExpectedReturn(), model, seed=-1), "seed=-1"),
        (lambda: ScoreFunction(LeaveOneOut), r"LeaveOneOut\(\)"),
        (lambda: Critic(3), "torch.nn.Module"),
        (lambda: ExpectedReturn(sites=["x"]), "glob: estimator"),
        (lambda: ppgrad.gradient(ExpectedReturn(), model, args=(1.0, {"baseline": "average"})), "Write a dict"),
    ],
)
def test_the_wrong_kind_of_thing(call, words: str) -> None:
    with pytest.raises((InvalidInput, InvalidAssignment), match=words):
        call()


def test_compare_wants_one_objective() -> None:
    with pytest.raises(InvalidInput, match="one kind of objective"):
        ppgrad.compare({}, model)


def test_nothing_is_warned_of_without_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ppgrad.gradient(ExpectedReturn(), model, seed=0)


def test_a_guide_with_a_delta_site_is_explained() -> None:
    """AutoNormal ends in a Delta, whose constraint has no fixed event dimension."""

    def latent() -> None:
        pyro.sample("s", dist.LogNormal(0.0, 1.0))

    guide = pyro.infer.autoguide.AutoNormal(latent)
    guide()
    objective = ELBO(num_particles=2)
    ppgrad.gradient(objective, latent, guide, seed=0)
    guide.locs.s.data.fill_(1000.0)
    with pytest.raises(NonFinite, match="'s'"):
        ppgrad.gradient(objective, latent, guide, seed=0)
