"""Whether a plate keeps its promise: what belongs to one slice is computed from that slice alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ppgrad.core import CoupledSlices, Plate, Unsupported
from ppgrad.core.distributions import without_mask
from ppgrad.engine.checking.dropped_costs import same
from ppgrad.engine.checking.held import HeldRuns
from ppgrad.engine.checking.rerun_errors import log_rerun_error
from ppgrad.engine.dependence.dependence import Dependence
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.fixed_parameters import Traces
from ppgrad.engine.running.sampler import Sampler
from ppgrad.engine.running.site import Site

TRIES = 8
"""How many draws are at hand for one that must differ from another."""

PAIRS, PAIRS_IN_A_LOOP = 16, 3
"""How many pairs of runs are compared, under vmap and where the program runs in a loop."""


def ask_plates(
    executor: Executor, sampler: Sampler, traces: Traces, sites: Sequence[Site], dependence: Dependence, strict: bool
) -> Dependence:
    """Find what slices of a plate are computed from each other, and warn of it.

    The program runs again in pairs that have the draws of one slice in common, and all others not. A cost of that
    slice, or the density of a draw in it, that differs is computed from the others.

    Args:
        executor: runs the program.
        sampler, traces, sites: of one run.
        dependence: of its sites.
        strict: raise instead of warning.

    Returns:
        ``dependence``, with the draws of other slices that a site was computed from.

    Raises:
        Unsupported: under ``strict``.
    """
    drawn = [site for site in sites if site.is_random and site.name in sampler.drawn]
    plates = sorted({plate for site in drawn for plate in site.plates if plate.size > 1})
    if not plates:
        return dependence
    try:
        mixed = _Slices(HeldRuns(executor, sampler, traces), drawn, sites).mixed(plates, dependence)
    except Exception as error:
        log_rerun_error("It is not known whether the slices of plates are apart", error)
        return dependence
    if not mixed:
        return dependence
    message = _message(mixed, dependence)
    if strict:
        raise Unsupported(message)
    warnings.warn(message, CoupledSlices, stacklevel=2)
    return replace(dependence, mixed=mixed)


class _Slices:
    """Reruns of a program in pairs that have one slice of some plates in common."""

    def __init__(self, held: HeldRuns, drawn: Sequence[Site], sites: Sequence[Site]):
        self._held, self._drawn, self._sites = held, drawn, sites

    def mixed(self, plates: Sequence[Plate], dependence: Dependence) -> dict[tuple[Plate, int], int]:
        """For each plate, and each site that other slices move, the draws in the plate that it was computed from."""
        if len(plates) > 1 and not self._moved(plates):
            return {}
        found: dict[tuple[Plate, int], int] = {}
        for plate in plates:
            inside = sum(1 << i for i, site in enumerate(dependence.sites) if site.is_random and plate in site.plates)
            for place in self._moved([plate]):
                draws = (dependence.values[place] | dependence.costs[place]) & inside
                if draws:
                    found[plate, place] = draws
        return found

    def _moved(self, plates: Sequence[Plate]) -> list[int]:
        """The places of the sites that differ in the slice that two runs have in common."""
        count = PAIRS if self._held.vectorizes else PAIRS_IN_A_LOOP
        values = {}
        for site in self._drawn:
            around = site.plates.intersection(plates)
            if around:
                one, other = _pairs(site, around, count)
                values[site.name] = torch.cat([one, other, one[:1]])
        moved = []
        for place, terms in enumerate(self._held.terms(values, 2 * count + 1, self._sites)):
            around = self._sites[place].plates.intersection(plates)
            is_certain = all(same(term[0], term[-1]) for term in terms)  # it has no randomness of its own
            if around and is_certain and not all(_same_in_pairs(term[:-1], around) for term in terms):
                moved.append(place)
        return moved


def _pairs(site: Site, plates: Iterable[Plate], count: int) -> tuple[Tensor, Tensor]:
    """Draws of a site, and draws that differ from them in all slices but one: the first, then the second, and so on."""
    fn = without_mask(site.fn)
    old, *others = fn.sample(torch.Size([1 + TRIES, count]))
    new = old
    for other in others:
        new = torch.where(new == old, other, new)
    return old, torch.where(_is_kept(old, plates, len(fn.event_shape)), old, new)


def _is_kept(terms: Tensor, plates: Iterable[Plate], event_dim: int = 0) -> Tensor:
    """Whether an element is in the slice that the i-th of ``terms`` keeps of each plate; where there is none, yes."""
    count = len(terms)
    kept = torch.ones(count, *[1] * (terms.dim() - 1), dtype=torch.bool, device=terms.device)
    for plate in plates:
        dim = plate.dim - event_dim
        if terms.dim() - 1 >= -dim and terms.shape[dim] == plate.size:
            place = torch.arange(plate.size, device=terms.device).reshape(-1, *[1] * (-dim - 1))
            which = torch.arange(count, device=terms.device) % plate.size
            kept = kept & (place == which.reshape(-1, *[1] * (terms.dim() - 1)))
    return kept


def _same_in_pairs(terms: Tensor, plates: Iterable[Plate]) -> bool:
    one, other = terms.chunk(2)
    kept = _is_kept(one, plates)
    return same(torch.where(kept, one, 0.0), torch.where(kept, other, 0.0))


def _message(mixed: Mapping[tuple[Plate, int], int], dependence: Dependence) -> str:
    plate, place = next(iter(mixed))
    site = dependence.sites[place]
    draws = mixed[plate, place] & ~(1 << place) or mixed[plate, place]
    draw = dependence.sites[draws.bit_length() - 1].name
    more = f" (and {len(mixed) - 1} more)" if len(mixed) > 1 else ""
    return (
        f"Plate '{plate.name}': site '{site.name}'{more} of one slice is computed from draws of '{draw}' in other "
        "slices, as where a batch is normalized or slices meet. The gradient is right: each draw is charged with the "
        "whole plate. Where slices are meant to be apart, compute each from its own draws alone; in place of a batch's "
        f"mean take LeaveOneOut(over='{plate.name}'). Where they are not, write the site outside of the plate."
    )
