"""Costs that a pathwise value changes outside of torch's graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    ELBO,
    DReG,
    ExpectedReturn,
    GaussianPolicy,
    Interpolated,
    InvalidAssignment,
    InverseVariance,
    MaxEntReturn,
    MuProp,
    NoGradientPath,
    Pathwise,
    RenyiELBO,
    ScoreFunction,
    StickingTheLanding,
    Unsupported,
)

PRIVATE = np.random.default_rng(0)
POLICY = GaussianPolicy(1, 1, squash=True, hidden=())


def mean() -> torch.Tensor:
    return pyro.param("mean", torch.tensor(0.5))


def in_numpy() -> None:
    x = ppgrad.policy("x", dist.Normal(mean(), 1.0))
    ppgrad.reward("r", -np.square(x.numpy(force=True) - 1))


def half_in_numpy() -> None:
    x = ppgrad.policy("x", dist.Normal(mean(), 1.0))
    ppgrad.reward("smooth", -(x**2))
    ppgrad.reward("r", torch.sin(x.detach()))
    ppgrad.reward("s", torch.cos(x.detach()))


def parameters_in_numpy() -> None:
    x = ppgrad.policy("x", dist.Normal(mean(), 1.0))
    ppgrad.reward("smooth", -(x**2))
    y = pyro.sample("y", dist.Normal(x.item(), 1.0))
    ppgrad.reward("r", y**2)


def observations_in_numpy() -> None:
    with pyro.plate("episodes", 4):
        weight, seen = mean(), np.zeros(4, np.float32)
        for t in range(3):
            action = ppgrad.policy(f"a_{t}", dist.Normal(weight * torch.as_tensor(seen), 1.0))
            seen = seen + action.numpy(force=True)
            ppgrad.reward(f"r_{t}", -np.square(seen))


def jumping() -> None:
    with pyro.plate("episodes", 64):
        x = ppgrad.policy("x", dist.Normal(mean(), 1.0).expand([64]))
        ppgrad.reward("r", (x > 0).float())


@pytest.mark.parametrize(
    ("objective", "program", "words"),
    [
        (MaxEntReturn(), in_numpy, ["Pathwise site 'x'", "the cost 'r'", "sites={'x': ScoreFunction()}"]),
        (MaxEntReturn(StickingTheLanding()), in_numpy, ["StickingTheLanding site 'x'", "the cost 'r'"]),
        (MaxEntReturn(InverseVariance()), in_numpy, ["InverseVariance site 'x'", "the cost 'r'"]),
        (MaxEntReturn(Interpolated(0.5)), in_numpy, ["Interpolated site 'x'", "the cost 'r'"]),
        (ExpectedReturn(), half_in_numpy, ["the cost 'r' (and 1 more)", "infer={'differentiable': False}"]),
        (ExpectedReturn(), parameters_in_numpy, ["the density of 'y'"]),
        (MaxEntReturn(), observations_in_numpy, ["site 'a_0'", "the cost 'r_0' (and "]),
        (MaxEntReturn(), jumping, ["the cost 'r'"]),
    ],
)
def test_what_the_gradient_misses_is_named(
    objective: ppgrad.Objective, program: Callable[[], None], words: list[str]
) -> None:
    with pytest.warns(NoGradientPath) as caught:
        ppgrad.gradient(objective, program, seed=0)
    message = str(caught[0].message)
    assert all(word in message for word in words), message
    assert len(caught) == 1
    assert "\n" not in message
    strict = type(objective)(objective.estimator, strict=True)
    with pytest.raises(Unsupported, match="no gradient path leads there"):
        ppgrad.gradient(strict, program, seed=0)


def chain() -> None:
    x = ppgrad.policy("x", dist.Normal(mean(), 1.0))
    b = ppgrad.policy("b", dist.Bernoulli(logits=x))
    ppgrad.reward("r", -((b - 0.3) ** 2))


def own_randomness() -> None:
    x = ppgrad.policy("x", dist.Normal(mean(), 1.0))
    ppgrad.reward("smooth", -(x**2))
    ppgrad.reward("private", PRIVATE.normal())
    ppgrad.reward("global", np.random.normal() + float(torch.randn(())))


def squashed_entropy() -> None:
    """The density of a squashed action is computed from the raw action: a path beside the value."""
    fn = pyro.module("policy", POLICY)(torch.ones(1))
    action = ppgrad.policy("a", fn)
    ppgrad.reward("surprise", -fn.log_prob(action))
    ppgrad.reward("r", -action.square().sum())
    ppgrad.reward("step", 1.0)


def of_other_draws() -> None:
    pyro.sample("z", dist.Normal(mean(), 1.0))
    c = ppgrad.policy("c", dist.Bernoulli(logits=mean()))
    ppgrad.reward("smooth", -(pyro.sample("x", dist.Normal(mean(), 1.0)) ** 2))
    ppgrad.reward("r", c)


@pytest.mark.parametrize("objective", [ExpectedReturn, MaxEntReturn])
@pytest.mark.parametrize("program", [chain, own_randomness, squashed_entropy])
def test_no_false_alarm(objective: type[ppgrad.Objective], program: Callable[[], None]) -> None:
    for seed in range(4):
        ppgrad.gradient(objective(strict=True), program, seed=seed)


def test_costs_of_other_draws_are_no_alarm() -> None:
    with pytest.warns(NoGradientPath, match="Pathwise site 'z': no gradient path leads from it") as caught:
        ppgrad.gradient(ExpectedReturn(), of_other_draws, seed=0)
    assert len(caught) == 1


def test_a_jump_that_the_estimator_finds_is_no_alarm() -> None:
    ppgrad.gradient(ExpectedReturn(InverseVariance(), strict=True), jumping, seed=0)


@pytest.mark.parametrize("objective", [ExpectedReturn, MaxEntReturn])
def test_a_program_whose_costs_have_paths_is_run_no_more_often(objective: type[ppgrad.Objective]) -> None:
    runs = 0

    def program() -> None:
        nonlocal runs
        runs += 1
        x = ppgrad.policy("x", dist.Normal(mean(), 1.0))
        ppgrad.reward("r", -(x**2))

    ppgrad.gradient(objective(Pathwise()), program, seed=0)
    pathwise, runs = runs, 0
    ppgrad.gradient(objective(ScoreFunction()), program, seed=0)
    assert pathwise == runs


def test_generators_are_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoGradientPath)
        draws = []
        for program in (in_numpy, half_in_numpy, own_randomness):
            pyro.set_rng_seed(3)
            MaxEntReturn().loss(program, None)
            draws.append((torch.randn(()).item(), np.random.normal()))
            pyro.set_rng_seed(3)
            pyro.poutine.trace(program).get_trace()
            assert draws[-1] == (torch.randn(()).item(), np.random.normal())
    assert draws[0] == draws[1]


# Sites that say it themselves.


def marked() -> None:
    x = ppgrad.policy("x", dist.Normal(mean(), 1.0), infer={"differentiable": False})
    ppgrad.reward("r", -np.square(x.numpy(force=True) - 1))


def test_the_default_at_a_marked_site_is_the_score_function() -> None:
    found = ppgrad.gradient(MaxEntReturn(strict=True), marked, seed=0)
    score = ppgrad.gradient(MaxEntReturn(ScoreFunction()), in_numpy, seed=0)
    assert found == score


@pytest.mark.parametrize(
    "estimator", [Pathwise(), StickingTheLanding(), Interpolated(0.5), InverseVariance(), MuProp()], ids=repr
)
def test_what_differentiates_the_cost_is_refused_at_a_marked_site(estimator: ppgrad.Estimator) -> None:
    with pytest.raises(Unsupported, match=rf"{type(estimator).__name__} .*'x'.*differentiable.*\n.*ScoreFunction\(\)"):
        ppgrad.gradient(ExpectedReturn(estimator), marked, seed=0)


def test_dreg_is_refused_at_a_marked_site() -> None:
    def guide() -> None:
        pyro.sample("z", dist.Normal(mean(), 1.0), infer={"differentiable": False})

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("f", -torch.as_tensor(np.square(z.numpy(force=True))))

    with pytest.raises(Unsupported, match=r"DReG .*'z'.*differentiable"):
        ppgrad.gradient(RenyiELBO(DReG(), num_importance=2), model, guide, seed=0)
    assert ppgrad.gradient(ELBO(strict=True), model, guide, seed=0)["mean"] != 0


def test_a_mark_is_true_or_false() -> None:
    def program() -> None:
        ppgrad.reward("r", ppgrad.policy("x", dist.Normal(mean(), 1.0), infer={"differentiable": "no"}))

    with pytest.raises(InvalidAssignment, match=r"'x'.*'no'.*True or False"):
        ppgrad.gradient(ExpectedReturn(), program, seed=0)
