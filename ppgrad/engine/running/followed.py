"""A run whose values are followed, for what its draws and costs were computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.poutine as poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppgrad.engine.dependence.dependence import Dependence, Draws, Structure
from ppgrad.engine.dependence.following import Following, Origins
from ppgrad.engine.dependence.order import Traced, dependence_of, ordered
from ppgrad.engine.dependence.sums import members, moved
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.execution import run, sites_of
from ppgrad.engine.running.handed_over import parts_of
from ppgrad.engine.running.sampler import Sampler
from ppgrad.engine.running.site import Site

Traces = tuple[poutine.Trace | None, poutine.Trace]


@dataclass(frozen=True)
class Followed:
    """A run whose values were followed: its traces, its sites with their costs, and what depends on what.

    Args:
        traces, sites, costs, dependence: of the run.
        asked: what the model's sites say by ``infer["gradient"]``, which a replayed trace does not keep.
        contexts: for each site with a context the draws that this was computed from.
        past_sites: for a site of the model the guide's draws that it was computed from, and that no site of the model
            had handed on by then.
    """

    traces: Traces
    sites: list[Site]
    costs: Sequence[Tensor | None]
    dependence: Dependence
    asked: Mapping[str, Any]
    contexts: Mapping[str, Draws]
    past_sites: Mapping[str, list[str]]


def follow(program: Program, sampler: Sampler, costs: Callable[[Sequence[Site]], Sequence[Tensor | None]]) -> Followed:
    """Run a program once and follow its values.

    Args:
        program: to be run.
        sampler: draws its sites.
        costs: the objective's cost of each site.
    """
    marking = Marking(sampler)
    with marking.following.active():
        traces = run(program, sampler, marking)
        sites = sites_of(*traces, sampler)
        found = costs(sites)
        dependence, contexts = marking.dependence(sites, found), marking.contexts(sites)
        return Followed(traces, sites, found, dependence, marking.asked.gradients, contexts, marking.read_past_sites())


class Asked(Messenger):
    """Remembers ``infer["gradient"]`` of each site of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients: dict[str, Any] = {}

    def _pyro_sample(self, message: Any) -> None:
        chosen = message["infer"].get("gradient")
        if chosen is not None:
            self.gradients[message["name"]] = chosen


class Marking(Messenger):
    """Marks each draw of a run as an origin of what is computed from it.

    Args:
        sampler: draws the sites; it is to stand further out.
    """

    def __init__(self, sampler: Sampler):
        super().__init__()
        self.following = Following()
        self.asked = Asked()
        self._sampler = sampler
        self._in_model = False
        self._origins: dict[str, Origins] = {}
        self._sources: dict[str, Origins] = {}
        self._escapes: dict[str, list[int]] = {}
        self._handed_on: Origins = 0
        self._past_sites: dict[str, Origins] = {}

    def start_model(self) -> None:
        """The guide is done: what left torch in it, the model reads through its sites alone."""
        self._in_model = True
        self.following.escapes.clear()

    def _pyro_sample(self, message: Any) -> None:
        self._escapes.setdefault(message["name"], []).append(len(self.following.escapes))
        if not message["done"] and not message["is_observed"] and type(message["fn"]).__name__ != "_Subsample":
            self.following.drawing = 1 << self.following.marked

    def _pyro_post_sample(self, message: Any) -> None:
        self.following.drawing = 0
        name, value = message["name"], message["value"]
        if name in self._sampler.drawn and name not in self._origins:
            self._sources[name] = self.following.origins(value)
            self._origins[name] = self.following.mark(value)
        if self._in_model:
            self._note_reads(message)

    def _note_reads(self, message: Any) -> None:
        """What a site of the model was computed from, and what it hands on."""
        name, value, is_observed = message["name"], message["value"], message["is_observed"]
        read = [*parts_of(message["fn"]), message["scale"], message["mask"], value if is_observed else None]
        own = self._origins.get(name, 0)
        self._past_sites[name] = self.following.origins(read) & ~self._handed_on & ~own
        self._handed_on |= own if is_observed else own | self.following.origins(value)

    def read_past_sites(self) -> dict[str, list[str]]:
        """The guide's draws that each site of the model reads although no site of the model has handed them on."""
        names = list(self._origins)
        return {site: [names[bit] for bit in members(read)] for site, read in self._past_sites.items() if read}

    def contexts(self, sites: Sequence[Site]) -> dict[str, Draws]:
        """The draws that each site's context was computed from, as places of ``sites``."""
        by_bit = self._places(sites)
        return {
            site.name: moved(self.following.origins(site.context), by_bit)
            for site in sites
            if site.context is not None and len(by_bit) == len(self._origins)
        }

    def _places(self, sites: Sequence[Site]) -> list[int]:
        """For each origin the place of its site, as far as a trace holds it."""
        places = {site.name: i for i, site in enumerate(sites) if site.name in self._origins and site.is_random}
        return [places[name] for name in self._origins if name in places]

    def dependence(self, sites: Sequence[Site], costs: Sequence[Tensor | None]) -> Dependence:
        """What the run has shown of ``sites``; call it while operations are followed.

        Args:
            sites: of the run, in program order.
            costs: of each site, computed while operations were followed.
        """
        by_bit = self._places(sites)
        if len(by_bit) < len(self._origins):  # a draw that no trace holds
            return order_of(sites, costs)

        def draws(origins: Origins) -> Draws:
            return moved(origins, by_bit)

        guided = {site.name: i for i, site in enumerate(sites) if site.in_guide}
        traced = []
        for site, cost, structure in zip(sites, costs, structure_of(sites, costs), strict=True):
            value = self._sources.get(site.name, 0) | self._of_density(site) if site.is_random else 0
            replays = guided.get(site.name) if site.kind == "replayed" else None
            followed = self._escapes[site.name][0 if site.in_guide else -1] == 0
            hides = site.is_random and site.name not in self._origins
            of_cost = 0 if cost is None else draws(self.following.origins(cost))
            reads_own = not site.is_replayed_in_closed_form
            traced.append(Traced(structure, draws(value), of_cost, followed, replays, site.in_guide, reads_own, hides))
        return dependence_of(traced, tuple(dict.fromkeys(place for _, place in self.following.escapes)))

    def _of_density(self, site: Site) -> Origins:
        try:
            return self.following.origins(site.density)
        except (NotImplementedError, KeyError):  # as of a flow without an inverse
            return 0


def structure_of(sites: Sequence[Site], costs: Sequence[Any]) -> tuple[Structure, ...]:
    """What tells one structure of a program from another."""
    return tuple(
        [
            Structure(site.name, site.plates, site.sequence, site.is_random, cost is not None)
            for site, cost in zip(sites, costs, strict=True)
        ]
    )


def order_of(sites: Sequence[Site], costs: Sequence[Any]) -> Dependence:
    """The dependence that the order of the sites alone tells."""
    guided = {site.name: i for i, site in enumerate(sites) if site.in_guide}
    replays = [guided.get(site.name) if site.kind == "replayed" else None for site in sites]
    reads_own = [not site.is_replayed_in_closed_form for site in sites]
    return ordered(structure_of(sites, costs), [site.in_guide for site in sites], replays, reads_own)
