"""Costs that change with a pathwise value although no gradient path leads to them: the gradient drops them."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import Estimator, NoGradientPath, Unsupported
from ppgrad.core.distributions import stand_ins, without_mask
from ppgrad.engine.checking.held import HeldRuns
from ppgrad.engine.checking.jumps import jumps_at
from ppgrad.engine.checking.rerun_errors import log_rerun_error
from ppgrad.engine.running.execution import sites_of
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.fixed_parameters import Traces
from ppgrad.engine.running.sampler import Sampler
from ppgrad.engine.running.site import Site

RERUNS = 3
"""How many runs with the same draws must agree before a change is put down to the values that were moved."""

ROUNDING = 16
"""Numbers that differ by less than this many times their precision count as the same."""

Terms = dict[str, Tensor]
"""Costs of the sites that are not random, and densities of those that are, by the words for them in a warning."""


def check_no_cost_dropped(
    executor: Executor, sampler: Sampler, traces: Traces, known: Container[str], strict: bool
) -> None:
    """Warn of a cost that changes with a pathwise value although no gradient path leads to it from any.

    Only where some cost has no path, the program runs again with the pathwise values drawn anew and
    all else as it was: the other draws, the subsamples, the state of the generators. A cost, or the density of a
    later draw, that then differs, and does not in runs with the same values, is missing from the gradient.

    Args:
        executor: runs the program.
        sampler, traces: of one run.
        known: the sites of which a person has been told already.
        strict: raise instead of warning.

    Raises:
        Unsupported: under ``strict``.
    """
    sites, estimators = sites_of(*traces, sampler), dict(executor.setup.assignment.served())
    pathwise = [site for site in sites if site.is_random and _is_pathwise(site, estimators)]
    movable = [s for s in pathwise if s.name not in known and not estimators[s.name].needs.outside_support]
    if not movable:
        return
    later = sites[sites.index(movable[0]) + 1 :]
    costs = dict(zip(sites, executor.setup.costs(sites), strict=True))
    values = [tensor for site in pathwise for tensor in stand_ins(site.fn, site.value)]
    if not _without_path(_costs(later, costs), values):
        return
    terms = _without_path(_costs(later, costs) | _densities(later), values)
    found = _Reruns(executor, sampler, traces).cause(movable, terms, estimators)
    if found is None:
        return
    site, dropped = found
    more = f" (and {len(dropped) - 1} more)" if len(dropped) > 1 else ""
    message = (
        f"{type(estimators[site.name]).__name__} site '{site.name}': {dropped[0]}{more} changes with its value, and no "
        "gradient path leads there, so that the gradient misses it. Choose the score function for this site and its "
        f"like, sites={{'{site.name}': ScoreFunction()}}, or mark them infer={{'differentiable': False}}."
    )
    if strict:
        raise Unsupported(message)
    warnings.warn(message, NoGradientPath, stacklevel=2)


def _is_pathwise(site: Site, estimators: Mapping[str, Estimator]) -> bool:
    return site.name in estimators and estimators[site.name].facts.reparameterized and site.value.requires_grad


def _costs(sites: Iterable[Site], costs: Mapping[Site, Tensor | None]) -> Terms:
    """Those of random sites are left out: an objective may detach them, where their gradient has mean zero."""
    found = {f"the cost '{site.name}'": costs[site] for site in sites if not site.is_random}
    return {label: cost for label, cost in found.items() if cost is not None}


def _densities(sites: Iterable[Site], values: Mapping[str, Tensor] | None = None) -> Terms:
    """The densities of random sites, at ``values`` where they are given."""
    found = {}
    for site in sites:
        if site.is_random:
            site.value = site.value if values is None else values[site.name]
            try:
                found[f"the density of '{site.name}'"] = site.density
            except NotImplementedError:
                continue
    return found


def _without_path(terms: Terms, values: Sequence[Tensor]) -> Terms:
    """The terms that were computed from none of ``values``, according to autograd's graph."""
    ends: set[Any] = {value.grad_fn for value in values}
    users: dict[Any, list[Any]] = defaultdict(list)
    stack = [term.grad_fn for term in terms.values() if term.grad_fn is not None]
    seen: set[Any] = set(stack)
    while stack:
        node = stack.pop()
        for parent, _ in () if node in ends else node.next_functions:
            if parent is not None:
                users[parent].append(node)
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
    reached = ends & seen
    stack = [*reached]
    while stack:
        above = [user for user in users[stack.pop()] if user not in reached]
        reached.update(above)
        stack.extend(above)
    return {label: term for label, term in terms.items() if term.grad_fn not in reached}


class _Reruns:
    """Runs of a program with the values that it drew, but for some of them."""

    def __init__(self, executor: Executor, sampler: Sampler, traces: Traces):
        self._executor, self._sampler, self._traces = executor, sampler, traces
        self._held = HeldRuns(executor, sampler, traces)

    def cause(
        self, movable: Sequence[Site], terms: Terms, estimators: Mapping[str, Estimator]
    ) -> tuple[Site, list[str]] | None:
        """The first site whose value changes some of ``terms``, and which; None if none does, or nothing can be said.

        A site whose estimator looks for jumps is passed over where it finds one: it keeps the gradient right there.
        """
        try:
            moved = {site.name: without_mask(site.fn).sample() for site in movable}
            changed = _changed(terms, terms, self._terms(moved))
            if not changed:
                return None
            with_moved, still = self._terms(moved), self._terms({})
            changed = _changed(changed, still, with_moved)
            changed = [label for label in changed if label not in _changed(changed, with_moved, self._terms(moved))]
            for _ in range(RERUNS - 1):
                own = _changed(changed, still, self._terms({}))
                changed = [label for label in changed if label not in own]
            for site in movable:
                by_site = _changed(changed, still, self._terms({site.name: moved[site.name]})) if changed else []
                if by_site and not (estimators[site.name].facts.finds_jumps and self._jumps(site)):
                    return site, by_site
        except Exception as error:
            log_rerun_error("It is not known whether a cost has no gradient path to a draw that moves it", error)
        return None

    def _terms(self, moved: Mapping[str, Tensor]) -> Terms:
        sites, found = self._held.run(moved)
        values = self._held.values
        known = [site for site in sites if not site.is_random or site.name in values]
        return _costs(known, dict(zip(sites, found, strict=True))) | _densities(known, values)

    def _jumps(self, site: Site) -> bool:
        return jumps_at(self._executor, site.name, self._sampler, self._traces, lines=2)


def _changed(labels: Iterable[str], one: Terms, other: Terms) -> list[str]:
    """The labels whose terms differ, of those that both have in the same shape."""
    both = [label for label in labels if label in one and label in other and one[label].shape == other[label].shape]
    return [label for label in both if not same(one[label].detach(), other[label].detach())]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two terms differ by no more than rounding."""
    precision = ROUNDING * torch.finfo(one.dtype).eps
    return bool(torch.isclose(one, other, rtol=precision, atol=0.0, equal_nan=True).all())
