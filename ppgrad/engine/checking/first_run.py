"""Get to know a program by one ordinary, validated run."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyro
import torch
from torch import Tensor

from ppgrad.core.generators import other_draws, random_state, undisturbed
from ppgrad.engine.checking.coupled_slices import ask_plates
from ppgrad.engine.checking.dropped_costs import check_no_cost_dropped
from ppgrad.engine.checking.explaining import nonfinite_explained, relaxation_explained
from ppgrad.engine.checking.jumps import check_continuous, jumps_at
from ppgrad.engine.checking.ordinary_run import ordinary_run, run_once, until_it_fits
from ppgrad.engine.checking.own_state import Ran, own_state
from ppgrad.engine.checking.reads import check_contexts, check_reads
from ppgrad.engine.checking.structure import (
    check_edges,
    check_finite,
    check_gradient_paths,
    check_relaxed_path,
    check_structure,
)
from ppgrad.engine.checking.summed_out import check_summed_out, plate_nesting, side_by_side_explained
from ppgrad.engine.program.parameters import ids_of_parameters, left_alone, named_parameters, registered_in
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.execution import all_random_messages, sites_of
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.followed import Followed, follow
from ppgrad.engine.running.grid import Grid
from ppgrad.engine.running.lanes import CannotVectorize
from ppgrad.engine.running.sampler import Branch, Sampler
from ppgrad.engine.running.site import Site
from ppgrad.engine.running.validity import can_be_checked_after, may_leave

T = TypeVar("T")

RUNS_FOR_A_GLOB = 20
"""In so many runs a site is looked for that the first one did not have."""


@dataclass(frozen=True)
class Prepared:
    """A program that has been looked at: its executor, and its parameters by name.

    ``registered`` names the parameters that the program itself registers with Pyro, ``left_alone`` those that are not
    trained; ``choices`` are those that it was looked at with; ``graph_bytes`` is what the graph of one estimate keeps,
    where one has been weighed.
    """

    executor: Executor
    parameters: dict[str, Tensor]
    registered: frozenset[str]
    choices: Hashable
    graph_bytes: int = 1
    left_alone: frozenset[str] = frozenset()

    @property
    def trained(self) -> dict[str, Tensor]:
        """The parameters that training moves: those that were registered or passed."""
        return {name: leaf for name, leaf in self.parameters.items() if name not in self.left_alone}

    def is_stale(self, program: Program) -> bool:
        """Whether a parameter came, went, was replaced, frozen or unfrozen since."""
        stored = dict(pyro.get_param_store().named_parameters())
        there = {name: stored[name] for name in self.registered | self.parameters.keys() if name in stored}
        return ids_of_parameters(program, there) != {*map(id, self.parameters.values())}


def prepare(
    executor: Executor, max_plate_nesting: float, strict: bool, model_may_draw: bool, choices: Hashable
) -> Prepared:
    """Run the program once, with draws that the caller will not see, and check all that can be.

    ``choices`` is all that the result depends on beside the program.

    Raises:
        PpgradError: a mistake in the choice of estimators, in the numbers or, under ``strict``,
            in the graph.
        Exception: Pyro's own, for mistakes in the program's structure.
    """
    with (
        other_draws(),
        torch.enable_grad(),
        side_by_side_explained(executor),
        nonfinite_explained(executor),
        relaxation_explained(executor.setup.assignment),
    ):
        begin: Any = None

        def first(sampler: Sampler) -> Followed:
            nonlocal begin
            begin = random_state()
            return follow(executor.program, sampler, executor.setup.costs)

        sampler, followed = until_it_fits(executor, first)
        guide_trace, model_trace = followed.traces
        if guide_trace is not None and executor.setup.assignment.heed_model(
            guide_trace.nodes, followed.asked.gradients
        ):
            executor.known.grid, executor.known.noises = Grid({}, {}), {}  # of other estimators
            sampler, followed = until_it_fits(executor, first)
            guide_trace, model_trace = followed.traces
        sites, costs = followed.sites, followed.costs
        check_summed_out(executor, followed)
        executor.known.learn(followed.dependence)
        check_contexts(followed)
        check_reads(followed, strict)
        executor.known.check_branches()
        _check_globs(executor, all_random_messages(guide_trace, model_trace, sampler))
        check_finite(sites, costs)
        check_edges(sites, costs)
        check_structure(guide_trace, model_trace, plate_nesting(executor, max_plate_nesting), model_may_draw)
        missed = check_gradient_paths(sites, costs, strict, dict(executor.setup.assignment.served()))
        check_no_cost_dropped(executor, sampler, (guide_trace, model_trace), missed, strict)
        executor.known.learn(ask_plates(executor, sampler, followed.traces, sites, followed.dependence, strict))
        executor.known.checks_after = can_be_checked_after(sites)
        executor.known.bounded = may_leave(sites)
        for site in sites:
            if site.drawn is not None and site.drawn.alternatives:
                executor.known.alternatives.setdefault(site.name, site.drawn.alternatives)  # at least
        changed = [site for site in sites if site.drawn is not None and site.drawn.alternatives]
        relaxed = [site for site in changed if site.estimator is not None and site.estimator.needs.relaxed]
        for site in changed:
            if site.estimator is not None and (site.estimator.needs.relaxed or site.estimator.needs.slopes):
                lines = max(1, min(3, 24 // len(relaxed))) if site in relaxed else 0
                _check_relaxed(executor, site, lines)
        _look_for_own_state(executor, (sites, costs), begin)
        registered = registered_in([guide_trace, model_trace])
        executor.parameters = named_parameters(executor.program, registered)
        alone = left_alone(executor.program, executor.parameters, registered)
        return Prepared(executor, executor.parameters, frozenset(registered), choices, left_alone=alone)


def _check_globs(executor: Executor, messages: dict[str, Mapping[str, Any]]) -> None:
    """Raise if a glob matches no site; one that the first run lacks may be in another, where values decide."""
    for _ in range(RUNS_FOR_A_GLOB):
        if not executor.setup.assignment.unmatched(messages):
            return
        sampler, guide_trace, model_trace = run_once(executor)
        messages = {**messages, **all_random_messages(guide_trace, model_trace, sampler)}
    executor.setup.assignment.check_globs(messages)


def _look_for_own_state(executor: Executor, first: Ran, begin: Any) -> None:
    """Have every lane run by itself where a program draws from, or keeps, what torch knows nothing of."""

    def again() -> Ran:
        sites = ordinary_run(executor)
        return sites, executor.setup.costs(sites)

    with undisturbed():
        executor.known.own_state = own_state(executor.program, first, begin, again)
    if executor.known.own_state is not None:
        executor.fall_back(CannotVectorize(executor.known.own_state))


def program_elements(prepared: Prepared) -> int:
    """How many numbers the sites of one run hold."""
    with torch.no_grad(), other_draws():
        sites = ordinary_run(prepared.executor)
    return sum(site.value.numel() + math.prod(site.fn.batch_shape) for site in sites) or 1


def where_the_cost_jumps(executor: Executor, names: Iterable[str]) -> frozenset[str]:
    """The sites where the cost was seen to jump as their value moves, of those named."""
    wanted = set(names)
    with torch.enable_grad(), nonfinite_explained(executor):
        sampler, guide_trace, model_trace = run_once(executor)
        there = [name for name in sampler.drawn if name in wanted]
        lines = 2 if len(there) < 10 else 1
        return frozenset(n for n in there if jumps_at(executor, n, sampler, (guide_trace, model_trace), lines))


def _check_relaxed(executor: Executor, changed: Site, lines: int) -> None:
    """Raise if the program cannot take a value between those of a site, or no slope leads from it to a cost."""
    name = changed.name
    shift = torch.zeros_like(changed.value).requires_grad_() if changed.value.is_floating_point() else None
    with pyro.validation_enabled(False), relaxation_explained(executor.setup.assignment, name):
        sampler, guide_trace, model_trace = run_once(executor, branch=Branch(name, 0), shift=shift)
        sites = sites_of(guide_trace, model_trace, sampler)
        place = next(i for i, site in enumerate(sites) if site.name == name)
        later = sites[place + 1 :]
        densities = [site.density for site in later if site.is_random]
        check_relaxed_path(sites[place], [*executor.setup.costs(sites)[place + 1 :], *densities])
        if lines:
            check_continuous(executor, name, sampler, (guide_trace, model_trace), lines)
