"""Compiled gradients: as distributed as the others, and all that goes with them as it does uncompiled."""

from __future__ import annotations

import logging
import random
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    ELBO,
    DisARM,
    ExpectedReturn,
    LeaveOneOut,
    MovingAverage,
    Pathwise,
    ScoreFunction,
)
from ppgrad.testing import SUITE_FAILURE_RATE, check_mean, conformance_cases
from tests.engine.compiling.programs import TRACED, program

REFUSED = ("sequential_elbo", "sequential_plate", "nested_loops", "gamma", "gamma_rate", "poisson", "binomial")
"""Problems with a sequential plate, which reads its indices, or with noise that cannot be drawn up front."""


CASES = [case for case in conformance_cases() if case.name not in REFUSED]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_mean_of_traced_gradients(part: int) -> None:
    """One problem for each example of each estimator; with the noise drawn up front."""
    chosen = {repr(case.estimator): case for case in random.Random(0).sample(CASES, len(CASES))}
    for case in list(chosen.values())[part::8]:
        torch._dynamo.reset()
        check_mean(replace(case, compile=TRACED), SUITE_FAILURE_RATE / (8 * len(chosen)), replicates=4_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "problem"),
    [(ScoreFunction(LeaveOneOut()), "episodes"), (Pathwise(), "normal_chain"), (DisARM(), "bernoulli_chain")],
    ids=str,
)
def test_mean_of_compiled_gradients(estimator: ppgrad.Estimator, problem: str) -> None:
    case = next(case for case in CASES if repr(case.estimator) == repr(estimator) and case.name == problem)
    check_mean(replace(case, compile=True), SUITE_FAILURE_RATE / 100)


def test_a_seed_gives_one_gradient_and_another_seed_another() -> None:
    objective = ExpectedReturn(ScoreFunction(), compile=TRACED)
    one, same, other = (ppgrad.gradient(objective, program, seed=seed)["loc"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len(objective.graphs) == 1


def test_gradient_moves_no_generator_and_no_memory() -> None:
    objective = ExpectedReturn(ScoreFunction(MovingAverage()), compile=TRACED)
    state = torch.get_rng_state()
    ppgrad.gradient(objective, program, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not objective.memory


def test_loss_and_both_ways_to_its_gradient_agree() -> None:
    objective = ExpectedReturn(Pathwise(), num_particles=3, compile=TRACED)
    pyro.set_rng_seed(3)
    loss = objective.loss(program, None)
    pyro.set_rng_seed(3)
    surrogate = objective.differentiable_loss(program, None)
    (gradient,) = torch.autograd.grad(surrogate, [pyro.get_param_store()._params["loc"]])
    pyro.set_rng_seed(3)
    assert objective.loss_and_grads(program, None) == pytest.approx(loss)
    assert surrogate.item() == pytest.approx(loss)
    assert pyro.get_param_store()._params["loc"].grad == pytest.approx(gradient)


def test_critics_and_moving_averages_learn_as_they_do_uncompiled() -> None:
    def learned(compile: bool | str) -> tuple[float, float]:
        pyro.clear_param_store()
        torch.manual_seed(0)
        critic = nn.Linear(1, 1)
        baseline = ppgrad.Critic(critic)

        def contextual() -> None:
            loc = pyro.param("loc", torch.tensor(0.5))
            z = ppgrad.policy("z", dist.Normal(loc, 1.0), context=torch.ones(1))
            ppgrad.cost("f", (z - 1.0) ** 2)

        svi = pyro.infer.SVI(
            contextual, None, pyro.optim.SGD({"lr": 0.01}),
            ExpectedReturn(ScoreFunction(baseline), num_particles=64, compile=compile),
        )  # fmt: skip
        for _ in range(300):
            svi.step()
        return pyro.param("loc").item(), critic(torch.ones(1)).item()

    for loc, value in (learned(False), learned(TRACED)):
        assert abs(loc - 1) < 0.2
        assert abs(value + 1) < 0.3  # a return of −1 at the optimum


def test_fit_reports_rewards_of_a_compiled_program() -> None:
    def rewarded() -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        with pyro.plate("episodes", 4):
            for t in pyro.markov(range(3)):
                z = ppgrad.policy(f"z_{t}", dist.Normal(loc, 1e-3))
                ppgrad.reward(f"r_{t}", -((z - 2.0) ** 2))

    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    history = ppgrad.fit(objective, rewarded, steps=20, learning_rate=0.1, progress=False)
    assert history.metrics["rollout/ep_rew_mean"].iloc[0] == pytest.approx(-3 * 1.5**2, abs=0.1)


def test_compiling_is_logged_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ppgrad"):
        ppgrad.gradient(ExpectedReturn(Pathwise(), compile=TRACED), program, seed=0)
    assert any("Compiled step of program" in record.message and " s" in record.message for record in caplog.records)


def test_replicates_of_the_elbo() -> None:
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))

    objective = ELBO(Pathwise(), compile=TRACED)
    found = ppgrad.measure(objective, model, guide, (torch.tensor(2.0),), replicates=501, chunk_size=100)
    assert found.draws["loc"].shape == (501,)
    assert float(found.p_value["loc"]) > SUITE_FAILURE_RATE


def test_hooks_of_the_parameters_are_called() -> None:
    weight = torch.ones((), requires_grad=True)
    seen: list[str] = []
    weight.register_hook(lambda _: seen.append("gradient"))
    weight.register_post_accumulate_grad_hook(lambda _: seen.append("accumulated"))

    def program(weight: torch.Tensor) -> None:
        ppgrad.reward("r", weight * ppgrad.policy("x", dist.Normal(torch.ones(()), 1.0)))

    objective = ExpectedReturn(Pathwise(), compile="aot_eager")
    for _ in range(2):
        objective.loss_and_grads(program, None, weight)
    assert seen == ["gradient", "accumulated"] * 2
