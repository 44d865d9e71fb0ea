"""Everything runs where its tensors lie: on a simulated device, and on a GPU where there is one."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad.core.generators import forked
from ppgrad.engine.program.program import program_of
from ppgrad.measurement import ready
from ppgrad.measurement.gradient import ascent, pure
from ppgrad.objectives import Objective
from ppgrad.testing import Case, all_problems, conformance_cases
from tests.engine.cases import one_problem_each
from tests.engine.simulated_device import IS_POSSIBLE, NAME, WHY_NOT, Simulation, problems_on, simulated_device

DEVICES = (
    ["cuda"]
    if torch.cuda.is_available()
    else [pytest.param(NAME, marks=pytest.mark.skipif(not IS_POSSIBLE, reason=str(WHY_NOT)))]
)

counts_waits = pytest.mark.skipif(not IS_POSSIBLE, reason=str(WHY_NOT))

FEW = one_problem_each()

ONE = ["aten._local_scalar_dense.default"]
"""The host reads one number: whether the costs and the densities are finite."""


@contextmanager
def there(device: str) -> Iterator[Simulation | None]:
    """The device can be used, and the problems put their tensors on it."""
    if device != NAME:
        with problems_on(device):
            yield None
        return
    with simulated_device() as simulation, problems_on(device):
        yield simulation


def moved_to(case: Case) -> Case:
    """The same estimator on the problem as it is made now, on the device in use."""
    return replace(case, problem=all_problems()[case.name])


def gradient(case: Case, seed: int = 0) -> dict[str, Tensor]:
    problem = case.problem
    return ppgrad.gradient(case.objective, problem.model, problem.guide, problem.args, seed=seed)


def host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu")


def waits(objective: Objective, simulation: Simulation, model: Any, guide: Any = None, args: Any = ()) -> list[str]:
    """What the host waits for while a program that is known already gives one gradient."""
    with pure(0, program_of(model, guide, args)):
        prepared = ready(objective, model, guide, args, None)
        memory = objective.recalled(prepared)
        simulation.synchronisations.clear()
        ascent(objective.estimate(prepared.executor, memory=memory).surrogate, prepared.parameters)
        return list(simulation.synchronisations)


def check_there(case: Case, device: str, log: pytest.LogCaptureFixture) -> None:
    with there(device):
        found = gradient(moved_to(case))
        assert {value.device.type for value in found.values()} == {torch.device(device).type}
        found = {name: host(value) for name, value in found.items()}
    assert not log.records, "the program cannot run under vmap there"
    expected = gradient(case)
    assert all(torch.isfinite(value).all() for value in found.values())
    if device == NAME and not _draws_on_the_host(case):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)


def _draws_on_the_host(case: Case) -> bool:
    """Whether a subsample, whose indices Pyro draws on the host, splits the noise between two generators."""
    return "subsample" in case.name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_the_gradient_lies_there_and_is_that_of_the_host(
    case: Case, device: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_there(case, device, caplog)


@pytest.mark.proof
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", sorted(all_problems()))
def test_every_problem(name: str, device: str, caplog: pytest.LogCaptureFixture) -> None:
    cases = conformance_cases(problems={name: all_problems()[name]})
    one_of_each_class = {type(case.estimator): case for case in cases}
    for case in one_of_each_class.values():
        if not isinstance(case.estimator, ppgrad.InverseVariance):  # of which one problem is enough
            check_there(case, device, caplog)


@counts_waits
@pytest.mark.parametrize("case", FEW, ids=str)
def test_a_gradient_waits_for_the_device_once(case: Case) -> None:
    with there(NAME) as simulation:
        assert simulation is not None
        case = moved_to(case)
        problem = case.problem
        assert waits(case.objective, simulation, problem.model, problem.guide, problem.args) == ONE


@counts_waits
@pytest.mark.parametrize("horizon", [3, 12])
@pytest.mark.parametrize("particles", [1, 4])
def test_how_often_a_rollout_waits_does_not_grow_with_its_steps(horizon: int, particles: int) -> None:
    with simulated_device() as simulation:
        policy = ppgrad.GaussianPolicy(2, 1, hidden=(8,)).to(NAME)
        program = ppgrad.rollout(ppgrad.envs.LinearQuadratic(device=NAME), policy, horizon=horizon, episodes=4)
        objective = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(), num_particles=particles)
        found = waits(objective, simulation, program)
        # One lane runs as it is written: its distributions and its environment are checked as well.
        assert len(found) == (1 if particles > 1 else 3), found


ENVIRONMENTS = {
    "LinearQuadratic": lambda device: (
        ppgrad.envs.LinearQuadratic(noise=0.1, device=device),
        ppgrad.GaussianPolicy(2, 1, covariance="full"),
    ),
    "Pendulum": lambda device: (
        ppgrad.envs.Pendulum(device=device),
        ppgrad.GaussianPolicy(3, 1, squash=True, bounds=(-2.0, 2.0)),
    ),
    "CartPole": lambda device: (ppgrad.envs.CartPole(device=device), ppgrad.CategoricalPolicy(4, 2)),
    "MountainCarContinuous": lambda device: (
        ppgrad.envs.MountainCarContinuous(device=device),
        ppgrad.BetaPolicy(2, 1, bounds=(-1.0, 1.0)),
    ),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments_and_policies(name: str, device: str) -> None:
    with there(device):
        env, policy = ENVIRONMENTS[name](device)
        policy = policy.to(device)
        program = ppgrad.rollout(env, policy, horizon=5, episodes=3)
        played = program()
        kind = torch.device(device).type
        assert {x.device.type for x in (played.returns, played.lengths, played.terminated)} == {kind}
        for objective in (ppgrad.ExpectedReturn(ppgrad.ScoreFunction()), ppgrad.MaxEntReturn(num_particles=3)):
            for value in ppgrad.gradient(objective, program, seed=0).values():
                assert value.device.type == kind
                assert torch.isfinite(host(value)).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("particles", [1, 2])
def test_a_number_that_is_not_finite_is_named_there(device: str, particles: int) -> None:
    class Explosive(ppgrad.envs.LinearQuadratic):
        def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
            return super().reward(state, action, next_state) / 0.0

    with there(device):
        policy = ppgrad.GaussianPolicy(2, 1, hidden=()).to(device)
        program = ppgrad.rollout(Explosive(device=device), policy, horizon=3, episodes=2)
        objective = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(), num_particles=particles)
        with pytest.raises(ppgrad.NonFinite, match="The reward at step 0, site 'r_0', is -inf"):
            ppgrad.gradient(objective, program, seed=0)


def gaussian(device: str) -> Any:
    def program() -> None:
        loc = pyro.param("loc", torch.tensor([1.0, -1.0], device=device))
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.Normal(loc, torch.ones_like(loc)))
            ppgrad.cost("f", x**2)

    return program


@pytest.mark.parametrize("device", DEVICES)
def test_fit_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(device: str, tmp_path: Path) -> None:
    def trained(steps: int, checkpoint: Path, resume: bool = False) -> Tensor:
        pyro.clear_param_store()
        objective = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(ppgrad.MovingAverage()), num_particles=4)
        options = {"checkpoint": checkpoint, "learning_rate": 0.05, "seed": 1, "resume": resume}
        ppgrad.fit(objective, gaussian(device), steps=steps, progress=False, **options)
        loc = pyro.param("loc")
        assert loc.device.type == torch.device(device).type
        return host(loc)

    with there(device):
        whole = trained(6, tmp_path / "whole.pt")
        trained(3, tmp_path / "parts.pt")
        assert torch.equal(trained(6, tmp_path / "parts.pt", resume=True), whole)


@counts_waits
def test_a_step_of_training_waits_a_fixed_number_of_times() -> None:
    with simulated_device() as simulation:
        counts: list[int] = []
        policy = ppgrad.GaussianPolicy(2, 1, hidden=(4,)).to(NAME)
        program = ppgrad.rollout(ppgrad.envs.LinearQuadratic(device=NAME), policy, horizon=10, episodes=4)
        objective = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(), num_particles=2)
        seen = [lambda row: counts.append(len(simulation.synchronisations))]
        ppgrad.fit(objective, program, steps=5, progress=False, callbacks=seen)
        # The finite check, the loss, the gradient's norm, its noise, what the episodes earned; for the metrics how many
        # draws count, their entropy, the policy's loss and its standard deviation.
        assert [later - earlier for earlier, later in itertools.pairwise(counts[1:])] == [9, 9, 9], counts


@pytest.mark.parametrize("device", DEVICES)
def test_measure_and_compare(device: str) -> None:
    with there(device):
        score = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(ppgrad.LeaveOneOut()), num_particles=2)
        path = ppgrad.ExpectedReturn(ppgrad.Pathwise())
        measured = ppgrad.measure(score, gaussian(device), replicates=200)
        assert measured.reference_kind == "exact"
        assert measured.draws["loc"].device.type == torch.device(device).type
        assert float(measured.p_value["loc"].min()) > 1e-8
        comparison = ppgrad.compare({"score": score, "path": path}, gaussian(device), replicates=50)
        assert set(comparison.totals().index) == {"score", "path"}


@pytest.mark.parametrize("device", DEVICES)
def test_pyro_trains_there(device: str) -> None:
    def model(data: Tensor) -> None:
        with pyro.plate("data", len(data)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(data), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=data)

    def guide(data: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros_like(data))
        scale = pyro.param("scale", torch.ones_like(data), constraint=dist.constraints.positive)
        with pyro.plate("data", len(data)):
            pyro.sample("z", dist.Normal(loc, scale))

    with there(device):
        data = torch.tensor([1.0, 2.0, 3.0], device=device)
        for objective in (ppgrad.ELBO(), ppgrad.IWELBO(num_importance=3), ppgrad.ELBO(ppgrad.ScoreFunction())):
            pyro.clear_param_store()
            svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss=objective)
            losses = [svi.step(data) for _ in range(3)]
            assert all(map(torch.isfinite, map(torch.tensor, losses)))
            assert pyro.param("loc").device.type == torch.device(device).type
            assert host(pyro.param("loc")).abs().min() > 0


@pytest.mark.parametrize("device", DEVICES)
def test_a_seed_leaves_the_generator_of_the_device_as_it_was(device: str) -> None:
    with there(device):
        torch.ones(1, device=device)
        before = host(torch.rand(3, device=device))
        with forked(7):
            first = host(torch.rand(3, device=device))
        with forked(7):
            assert torch.equal(host(torch.rand(3, device=device)), first)
        assert not torch.equal(before, first)
        with forked(8):
            state = torch.get_device_module(device).get_rng_state()
            ppgrad.gradient(ppgrad.ExpectedReturn(ppgrad.ScoreFunction()), gaussian(device), seed=3)
            assert torch.equal(torch.get_device_module(device).get_rng_state(), state)


def test_noise_that_particles_share_has_the_precision_of_the_site() -> None:
    program = gaussian("cpu")
    for draws in (ppgrad.Antithetic(), ppgrad.QuasiMonteCarlo()):
        objective = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(draws=draws), num_particles=4)
        with pure(0, program_of(program)):
            prepared = objective.prepare(program)
            objective.estimate(prepared.executor)
        assert {site.dtype for site in prepared.executor.known.noises.values()} == {torch.float32}


@pytest.fixture(autouse=True)
def _all_notes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="ppgrad")
    pyro.clear_param_store()
