"""Get to know a program by one ordinary, validated run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor

from ppgrad.core import NonFinite, OutOfSupport, PpgradError, Unsupported
from ppgrad.core.draw import total
from ppgrad.core.generators import aside, draws_up_front, random_state, undisturbed
from ppgrad.engine.assignment.assignment import Assignment
from ppgrad.engine.checking.coupled_slices import ask_plates
from ppgrad.engine.checking.dropped_costs import check_no_cost_dropped
from ppgrad.engine.checking.jumps import check_continuous, jumps_at
from ppgrad.engine.checking.own_state import Ran, own_state
from ppgrad.engine.checking.structure import (
    check_edges,
    check_finite,
    check_gradient_paths,
    check_parameters,
    check_relaxed_path,
    check_structure,
)
from ppgrad.engine.checking.summed_out import check_summed_out, plate_nesting, side_by_side_explained
from ppgrad.engine.program.parameters import announced, ids_of_parameters, named_parameters
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.branches import cannot_relax
from ppgrad.engine.running.enumerating import PlatesUnknown
from ppgrad.engine.running.execution import all_random_messages, run, sites_of
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.followed import Followed, follow
from ppgrad.engine.running.handed_over import WrittenTo
from ppgrad.engine.running.lanes import CannotVectorize
from ppgrad.engine.running.record import Record
from ppgrad.engine.running.sampler import Branch, GridGrew, Sampler, SharedNoise, Watch
from ppgrad.engine.running.site import Site
from ppgrad.engine.running.validity import can_be_checked_after, may_leave, outside

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """A program that has been looked at: its executor, and its parameters by name.

    ``announces`` names the parameters that the program itself registers with Pyro; ``graph_bytes`` is what the graph
    of one estimate keeps, where one has been weighed; ``told`` are the choices that it was looked at with.
    """

    executor: Executor
    parameters: dict[str, Tensor]
    announces: frozenset[str]
    graph_bytes: int = 1
    told: Hashable = None

    def is_stale(self, program: Program) -> bool:
        """Whether a parameter came, went, was replaced, frozen or unfrozen since."""
        stored = dict(pyro.get_param_store().named_parameters())
        registered = self.announces | self.parameters.keys()
        announced = {name: stored[name] for name in registered if name in stored}
        return ids_of_parameters(program, announced) != {*map(id, self.parameters.values())}


def prepare(executor: Executor, max_plate_nesting: float, strict: bool, model_may_draw: bool) -> Prepared:
    """Run the program once, with draws that the caller will not see, and check all that can be.

    Raises:
        PpgradError: a mistake in the choice of estimators, in the numbers or, under ``strict``,
            in the graph.
        Exception: Pyro's own, for mistakes in the program's structure.
    """
    with (
        aside(),
        torch.enable_grad(),
        side_by_side_explained(executor),
        nonfinite_explained(executor),
        relaxation_explained(executor.assignment),
    ):
        begin: Any = None

        def first(sampler: Sampler) -> Followed:
            nonlocal begin
            begin = random_state()
            return follow(executor.program, sampler, executor.costs)

        sampler, followed = _growing(executor, first)
        if followed.traces[0] is not None and executor.heed_model(followed.traces[0], followed.asked.gradients):
            sampler, followed = _growing(executor, first)
        guide_trace, model_trace = followed.traces
        sites, costs = followed.sites, followed.costs
        check_summed_out(executor, followed)
        executor.learn(followed.dependence)
        executor.check_branches()
        executor.assignment.check_globs(all_random_messages(guide_trace, model_trace, sampler))
        check_finite(sites, costs)
        check_edges(sites, costs)
        check_structure(guide_trace, model_trace, plate_nesting(executor, max_plate_nesting), model_may_draw)
        missed = check_gradient_paths(sites, costs, strict, dict(executor.assignment.served()))
        check_no_cost_dropped(executor, sampler, (guide_trace, model_trace), missed, strict)
        executor.learn(ask_plates(executor, sampler, followed.traces, sites, followed.dependence, strict))
        executor.checks_after = can_be_checked_after(sites)
        executor.bounded = may_leave(sites)
        for site in sites:
            if site.drawn is not None and site.drawn.alternatives:
                executor.alternatives.setdefault(site.name, site.drawn.alternatives)  # at least
        changed = [site for site in sites if site.drawn is not None and site.drawn.alternatives]
        relaxed = [site for site in changed if site.estimator is not None and site.estimator.needs.relaxed]
        for site in changed:
            if site.estimator is not None and (site.estimator.needs.relaxed or site.estimator.needs.slopes):
                lines = max(1, min(3, 24 // len(relaxed))) if site in relaxed else 0
                _check_relaxed(executor, site, lines)
        _look_for_own_state(executor, (sites, costs), begin)
        registered = announced([guide_trace, model_trace])
        executor.parameters = named_parameters(executor.program, registered)
        return Prepared(executor, executor.parameters, frozenset(registered))


def _look_for_own_state(executor: Executor, first: Ran, begin: Any) -> None:
    """Have every lane run by itself where a program draws from, or keeps, what torch knows nothing of."""

    def again() -> Ran:
        sites = ordinary_run(executor)
        return sites, executor.costs(sites)

    with undisturbed():
        executor.own_state = own_state(executor.program, first, begin, again)
    if executor.own_state is not None:
        executor.fall_back(CannotVectorize(executor.own_state))


@contextmanager
def relaxation_explained(assignment: Assignment, changed: str | None = None) -> Iterator[None]:
    """Turn a program's error at a value between those of a distribution into one that says what to choose."""
    try:
        yield
    except PpgradError:
        raise
    except Exception as error:
        relaxed = assignment.relaxed_sites(changed)
        if not relaxed:
            raise
        name, estimator = relaxed[-1]
        raise Unsupported(cannot_relax(name, estimator, error)) from error


@contextmanager
def nonfinite_explained(executor: Executor) -> Iterator[None]:
    """Turn an error of a distribution's own checks into one that names the site."""
    try:
        yield
    except OutOfSupport:
        raise
    except (ValueError, RuntimeError) as error:
        if draws_up_front():
            raise
        try:
            explain_nonfinite(executor)
        except (NonFinite, OutOfSupport) as explained:
            raise explained from error
        except Exception:
            raise error from None
        raise


def explain_nonfinite(executor: Executor) -> None:
    """Run the program again and raise at the first site with a number that is not finite or in range.

    What the program itself says of it, as policies and environments do, goes first.
    """
    with aside(), pyro.validation_enabled(True):
        try:
            ordinary_run(executor)
        except (NonFinite, OutOfSupport):
            raise
        except Exception as error:
            logging.getLogger("ppgrad").debug("Not explained by the program: %s", error)
    with aside(), pyro.validation_enabled(False):
        sites = ordinary_run(executor, watch=check_parameters)
        check_finite(sites, executor.costs(sites))


def check_record_finite(executor: Executor, records: list[Record]) -> None:
    """Raise if a cost or a log density of a run is NaN or infinite, naming the site."""
    entries = [entry for record in records for entry in record.entries]
    terms = [(entry.name, "cost", entry.cost) for entry in entries if entry.cost is not None]
    terms += [(entry.name, "log density", entry.draw.log_prob) for entry in entries if entry.draw is not None]
    with torch.no_grad():
        if bool(torch.isfinite(total([term for _, _, term in terms]))):
            return
    explain_nonfinite(executor)
    for name, what, term in terms:
        bad = term[~torch.isfinite(term)]
        if bad.numel() and name in executor.bounded and bool((bad == math.inf).any()):
            raise outside([name])
        if bad.numel():
            raise NonFinite(f"At site '{name}' the {what} is {float(bad[0].detach()):g}. Keep it finite.")


def not_finite(executor: Executor, losses: Tensor, otherwise: str) -> PpgradError:
    """The error of a loss or a gradient that is not finite, once `explain_nonfinite` has found nothing.

    Args:
        executor: of the program.
        losses: of the runs.
        otherwise: what to say unless a density is 0 at a value that nothing checked.
    """
    if executor.bounded and bool((losses == math.inf).any()):
        return outside(sorted(executor.bounded))
    return NonFinite(otherwise)


def ordinary_run(executor: Executor, watch: Watch | None = None) -> list[Site]:
    """The sites of one run of the program outside of vmap."""
    sampler, guide_trace, model_trace = _run(executor, watch)
    return sites_of(guide_trace, model_trace, sampler)


def program_elements(prepared: Prepared) -> int:
    """How many numbers the sites of one run hold."""
    with torch.no_grad(), aside():
        sites = ordinary_run(prepared.executor)
    return sum(site.value.numel() + math.prod(site.fn.batch_shape) for site in sites) or 1


def traces(executor: Executor) -> tuple[poutine.Trace | None, poutine.Trace]:
    """The guide's and the model's trace of one run of the program outside of vmap."""
    return _run(executor)[1:]


def where_the_cost_jumps(executor: Executor, names: Iterable[str]) -> frozenset[str]:
    """The sites where the cost was seen to jump as their value moves, of those named."""
    wanted = set(names)
    with torch.enable_grad(), nonfinite_explained(executor):
        sampler, guide_trace, model_trace = _run(executor)
        there = [name for name in sampler.drawn if name in wanted]
        lines = 2 if len(there) < 10 else 1
        return frozenset(n for n in there if jumps_at(executor, n, sampler, (guide_trace, model_trace), lines))


def _check_relaxed(executor: Executor, changed: Site, lines: int) -> None:
    """Raise if the program cannot take a value between those of a site, or no slope leads from it to a cost."""
    name = changed.name
    shift = torch.zeros_like(changed.value).requires_grad_() if changed.value.is_floating_point() else None
    with pyro.validation_enabled(False), relaxation_explained(executor.assignment, name):
        sampler, guide_trace, model_trace = _run(executor, branch=Branch(name, 0), shift=shift)
        sites = sites_of(guide_trace, model_trace, sampler)
        place = next(i for i, site in enumerate(sites) if site.name == name)
        later = sites[place + 1 :]
        densities = [site.density for site in later if site.is_random]
        check_relaxed_path(sites[place], [*executor.costs(sites)[place + 1 :], *densities])
        if lines:
            check_continuous(executor, name, sampler, (guide_trace, model_trace), lines)


def _run(
    executor: Executor, watch: Watch | None = None, branch: Branch | None = None, shift: Tensor | None = None
) -> tuple[Sampler, poutine.Trace | None, poutine.Trace]:
    sampler, (guide_trace, model_trace) = _growing(
        executor, lambda sampler: run(executor.program, sampler), watch, branch, shift
    )
    return sampler, guide_trace, model_trace


def _growing(
    executor: Executor,
    runs: Callable[[Sampler], T],
    watch: Watch | None = None,
    branch: Branch | None = None,
    shift: Tensor | None = None,
) -> tuple[Sampler, T]:
    """Run with a sampler of the first grid points, again until the grid holds all sites that are summed over."""
    while True:
        sampler = Sampler(
            executor.assignment,
            executor.sizes,
            executor.first_branch(),
            watch,
            branch,
            shift,
            uniforms=executor.first_noise(),
            copies=executor.copies,
            summing=executor.summing,
        )
        try:
            return sampler, runs(sampler)
        except (GridGrew, SharedNoise, WrittenTo, PlatesUnknown) as more:
            executor.grow(more)
