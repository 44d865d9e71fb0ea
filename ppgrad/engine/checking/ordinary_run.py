"""One run of a program as Pyro runs it: one lane, outside of vmap, validated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pyro.poutine as poutine
from torch import Tensor

from ppgrad.engine.running.enumerating import PlatesUnknown
from ppgrad.engine.running.execution import run, sites_of
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.handed_over import WrittenTo
from ppgrad.engine.running.sampler import Branch, GridTooSmall, Sampler, SharedNoise, Watch
from ppgrad.engine.running.site import Site

T = TypeVar("T")


def ordinary_run(executor: Executor, watch: Watch | None = None) -> list[Site]:
    """The sites of one run of the program outside of vmap."""
    sampler, guide_trace, model_trace = run_once(executor, watch)
    return sites_of(guide_trace, model_trace, sampler)


def traces(executor: Executor) -> tuple[poutine.Trace | None, poutine.Trace]:
    """The guide's and the model's trace of one run of the program outside of vmap."""
    return run_once(executor)[1:]


def run_once(
    executor: Executor, watch: Watch | None = None, branch: Branch | None = None, shift: Tensor | None = None
) -> tuple[Sampler, poutine.Trace | None, poutine.Trace]:
    """The sampler and the traces of one run, which may differ from the program as drawn by ``branch``."""
    sampler, (guide_trace, model_trace) = until_it_fits(
        executor, lambda sampler: run(executor.program, sampler), watch, branch, shift
    )
    return sampler, guide_trace, model_trace


def until_it_fits(
    executor: Executor,
    runs: Callable[[Sampler], T],
    watch: Watch | None = None,
    branch: Branch | None = None,
    shift: Tensor | None = None,
) -> tuple[Sampler, T]:
    """Run with a sampler of the first grid points, again until the grid holds all sites that are summed over."""
    while True:
        sampler = Sampler(
            executor.setup.assignment,
            executor.setup.sizes,
            executor.known.grid.first_indices(),
            watch,
            branch,
            shift,
            uniforms=executor.first_noise(),
            copies=executor.known.copies,
            summing=executor.summing,
        )
        try:
            return sampler, runs(sampler)
        except (GridTooSmall, SharedNoise, WrittenTo, PlatesUnknown) as more:
            executor.grow(more)
