"""Programs of twelve shapes: the gradient is right, and no noisier than where Pyro follows provenance."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from scipy import stats
from torch import Tensor

import ppgrad
from benchmarks.programs.shapes import Programs, all_shapes, subsampled
from ppgrad import ELBO, LeaveOneOut, ScoreFunction
from ppgrad.testing import SUITE_FAILURE_RATE
from tests.engine.dependence.by_enumeration import exact_gradient

SHAPES = all_shapes()
FAILURE_RATE = SUITE_FAILURE_RATE / (10 * len(SHAPES))
NODES = {"topic_model": 16}
"""What is no polynomial of its Gaussians takes more nodes."""

OBJECTIVES = {
    "default": ELBO,
    "score everywhere": lambda: ELBO(ScoreFunction()),
    "particles": lambda: ELBO(ScoreFunction(LeaveOneOut()), num_particles=2),
}


@functools.cache
def reference(name: str) -> dict[str, Tensor]:
    programs = subsampled(2, whole=True) if name == "subsampled" else SHAPES[name](2)
    return exact_gradient(*programs, nodes=NODES.get(name, 2))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("shape", SHAPES)
def test_mean(shape: str, objective: str) -> None:
    exact = {name: value.float() for name, value in reference(shape).items()}
    found = ppgrad.measure(OBJECTIVES[objective](), *SHAPES[shape](2), replicates=20_000, reference=exact)
    components = sum(value.numel() for value in exact.values())
    for name, p_value in found.p_value.items():
        rounding = found.bias[name].abs() <= 1e-5 * (1 + exact[name].abs())
        assert ((p_value > FAILURE_RATE / components) | rounding).all(), f"{name}: {found.mean[name]}, {exact[name]}"


def total_variance(draws: Tensor) -> tuple[float, float]:
    """The sum of the variances of all components of ``(replicates, components)``, and its standard error."""
    squares = (draws - draws.mean(0)).square().sum(1) * len(draws) / (len(draws) - 1)
    return float(squares.mean()), float(squares.std() / len(draws) ** 0.5)


def of_pyro(loss: Any, model: Callable[[], None], guide: Callable[[], None], replicates: int) -> Tensor:
    """Gradients of one of Pyro's bounds, all parameters side by side."""
    draws = []
    for _ in range(replicates):
        loss.loss_and_grads(model, guide)
        parameters = [parameter for _, parameter in sorted(pyro.get_param_store().named_parameters())]
        draws.append(torch.cat([parameter.grad.reshape(-1) for parameter in parameters]))
        for parameter in parameters:
            parameter.grad = None
    return torch.stack(draws)


def p_value_of_no_more(ours: Tensor, theirs: Tensor) -> float:
    """Of the hypothesis that the total variance of ``ours`` is at most that of ``theirs``: a z test of log ratios."""
    (variance, error), (limit, other) = total_variance(ours), total_variance(theirs)
    return float(stats.norm.sf(math.log(variance / limit) / math.hypot(error / variance, other / limit)))


def measured(objective: ppgrad.Objective, programs: Programs, replicates: int) -> Tensor:
    draws = ppgrad.measure(objective, *programs, replicates=replicates, reference=None).draws
    return torch.cat([draws[name].reshape(replicates, -1) for name in sorted(draws)], 1)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_variance_is_at_most_that_of_tracegraph_elbo(shape: str) -> None:
    programs = SHAPES[shape](3)
    ours, theirs = measured(ELBO(), programs, 20_000), of_pyro(TraceGraph_ELBO(), *programs, 200)
    assert p_value_of_no_more(ours, theirs) > FAILURE_RATE


def test_credit_with_every_cost_is_found_to_be_noisier() -> None:
    programs = SHAPES["global_and_local"](4)
    assert p_value_of_no_more(of_pyro(Trace_ELBO(), *programs, 200), measured(ELBO(), programs, 5000)) < FAILURE_RATE
