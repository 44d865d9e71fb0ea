"""Bounds by importance weights never lie above the evidence: 200 random programs with plates."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import ppgrad
from ppgrad import IWELBO, NotABound, RenyiELBO, Unsupported
from ppgrad.engine.program.program import program_of
from ppgrad.measurement import ready
from ppgrad.measurement.gradient import pure
from ppgrad.measurement.replicates import replicate
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters
from tests.objectives.plated_programs import PlatedProgram, plated_program

PROGRAMS = 200
BLOCKS = 10
EACH = PROGRAMS // BLOCKS
FAILURE_RATE = SUITE_FAILURE_RATE / (10 * PROGRAMS)


def bound_of(seed: int) -> ppgrad.Objective:
    count = 2 + seed % 5
    return RenyiELBO(alpha=0.4, num_importance=count) if seed % 4 == 3 else IWELBO(num_importance=count)


def bound_and_error(objective: ppgrad.Objective, program: PlatedProgram, replicates: int = 400) -> tuple[float, float]:
    with pure(0, program_of(program.model, program.guide)):
        prepared = ready(objective, program.model, program.guide, (), None)
        values = -replicate(objective, prepared, replicates, 0, None).losses.double()
    return float(values.mean()), float(values.std() / math.sqrt(replicates))


@pytest.mark.parametrize("block", range(BLOCKS))
def test_never_above_the_evidence(block: int) -> None:
    for seed in range(EACH * block, EACH * (block + 1)):
        program, objective = plated_program(seed), bound_of(seed)
        bound, error = bound_and_error(objective, program)
        above = bound - program.log_evidence()
        assert stats.norm.sf(above / error) > FAILURE_RATE, f"program {seed}: {above} ± {error} above the evidence"
        assert objective.weights == (f"of each slice of {program.slices}" if program.slices else "joint"), seed


def test_the_generator_draws_everything() -> None:
    programs = [plated_program(seed) for seed in range(PROGRAMS)]
    assert len({(p.a, p.z, p.is_global) for p in programs}) == 16
    assert {p.drawn != (p.outer, p.inner) for p in programs} == {True, False}
    assert {bool(p.mask.all()) for p in programs} == {True, False}


def test_a_scale_inside_of_the_logarithm_is_found_and_named() -> None:
    """The same programs where a global latent couples the slices that are subsampled."""
    program = replace(plated_program(0), outer=3, drawn=(1, 2), inner=2, is_global=True, a="none", z="normal")
    mask, data = program.mask.new_ones(3, 2), program.data.new_tensor([[1.0, 2.0], [-1.0, 0.5], [3.0, -0.7]])
    program = replace(program, mask=mask, data=data, noise=0.5)
    with pytest.warns(NotABound, match=r"IWELBO: plate 'outer' is subsampled.*Write the plate without"):
        bound, error = bound_and_error(IWELBO(num_importance=64), program)
    assert stats.norm.sf((bound - program.log_evidence()) / error) < FAILURE_RATE
    with pytest.raises(Unsupported, match="plate 'outer' is subsampled"):
        IWELBO(num_importance=64, strict=True).loss(program.model, program.guide)


def test_a_loop_over_a_subsample_has_one_weight() -> None:
    data = torch.linspace(-1, 1, 6)

    def model() -> None:
        for i in pyro.plate("n", 6, subsample_size=2):
            z = pyro.sample(f"z_{int(i)}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x_{int(i)}", dist.Normal(z, 1.0), obs=data[i])

    def guide() -> None:
        for i in pyro.plate("n", 6, subsample_size=2):
            pyro.sample(f"z_{int(i)}", dist.Normal(parameters({"m": 0.1})["m"], 1.0))

    with pytest.warns(NotABound, match="plate 'n' is subsampled"):
        IWELBO(num_importance=4).loss(model, guide)


def test_it_is_said_once() -> None:
    program = replace(plated_program(0), drawn=(1, plated_program(0).inner), is_global=True)
    objective = IWELBO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            objective.loss(program.model, program.guide)
    assert [warning.category for warning in caught].count(NotABound) == 1


def test_of_one_weight_it_is_a_bound_all_the_same() -> None:
    program = replace(plated_program(0), drawn=(1, plated_program(0).inner), is_global=True)
    IWELBO(num_importance=1).loss(program.model, program.guide)
