"""A run whose values are followed, for what its draws and costs were computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.poutine as poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, Transform

from ppgrad.core import InvalidProgram
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
        asked: what the model's sites say, which a replayed trace does not keep.
        contexts: for each site with a context the draws that this was computed from.
        past_sites: for a site of the model the guide's draws that it was computed from, and that no site of the model
            had handed on by then.
    """

    traces: Traces
    sites: list[Site]
    costs: Sequence[Tensor | None]
    dependence: Dependence
    asked: Asked
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
        try:
            traces = run(program, sampler, marking)
        finally:
            marking.check_summed_stay()
        marking.check_summed_visible(traces[1])
        sites = sites_of(*traces, sampler)
        found = costs(sites)
        dependence, contexts = marking.dependence(sites, found), marking.contexts(sites)
        return Followed(traces, sites, found, dependence, marking.asked, contexts, marking.read_past_sites())


class Asked(Messenger):
    """Remembers ``infer["gradient"]`` of each site of a model, and the latent sites that it asks to be summed out."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients: dict[str, Any] = {}
        self.enumerated: list[str] = []

    def _pyro_sample(self, message: Any) -> None:
        chosen = message["infer"].get("gradient")
        if chosen is not None:
            self.gradients[message["name"]] = chosen
        if message["infer"].get("enumerate") is not None and not message["is_observed"]:
            self.enumerated.append(message["name"])


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
        self._summed: dict[str, Origins] = {}
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
        elif "_enumerate_dim" in message["infer"] and name not in self._summed:
            self._summed[name] = self.following.mark(value)
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
        names = {origin: name for name, origin in self._origins.items()}
        read = {
            site: [names[1 << bit] for bit in members(origins) if 1 << bit in names]
            for site, origins in self._past_sites.items()
        }
        return {site: draws for site, draws in read.items() if draws}

    def contexts(self, sites: Sequence[Site]) -> dict[str, Draws]:
        """The draws that each site's context was computed from, as places of ``sites``."""
        by_bit = self._places(sites)
        return {
            site.name: self._moved(self.following.origins(site.context), by_bit)
            for site in sites
            if site.context is not None and len(by_bit) == len(self._origins)
        }

    def _places(self, sites: Sequence[Site]) -> list[int]:
        """For each draw the place of its site, as far as a trace holds it."""
        places = {site.name: i for i, site in enumerate(sites) if site.name in self._origins and site.is_random}
        return [places[name] for name in self._origins if name in places]

    def _moved(self, origins: Origins, places: Sequence[int]) -> Draws:
        """The draws of ``origins`` as places of sites; a site that is summed out is no draw."""
        if not self._summed:
            return moved(origins, places)
        by_origin = dict(zip(self._origins.values(), places, strict=True))
        return sum(1 << by_origin[1 << bit] for bit in members(origins) if 1 << bit in by_origin)

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
            return self._moved(origins, by_bit)

        guided = {site.name: i for i, site in enumerate(sites) if site.in_guide}
        traced = []
        for site, cost, structure in zip(sites, costs, structure_of(sites, costs), strict=True):
            value = self._sources.get(site.name, 0) | self._of_density(site) if site.is_random else 0
            replays = guided.get(site.name) if site.kind == "replayed" else None
            followed = all(self._escapes[name][0 if site.in_guide else -1] == 0 for name in site.members)
            hides = site.is_random and site.name not in self._origins
            of_cost = 0 if cost is None else draws(self.following.origins(cost))
            reads_own = not site.is_replayed_in_closed_form
            traced.append(Traced(structure, draws(value), of_cost, followed, replays, site.in_guide, reads_own, hides))
        return dependence_of(traced, tuple(dict.fromkeys(place for _, place in self.following.escapes)))

    def check_summed_stay(self) -> None:
        """Raise if the values of a summed-out site, all of them side by side, were handed to Python.

        Raises:
            InvalidProgram: names the site and the place.
        """
        for origins, place in self.following.left:
            for name, origin in self._summed.items():
                if origins & origin:
                    raise InvalidProgram(
                        f"Site '{name}' is summed out: all of its values stand side by side in one tensor, and the "
                        f"program makes a Python number of them at {place}. Compute with tensors, as in table[z], "
                        "Vindex(table)[y, z] or torch.where(z == 1, a, b), or draw the site in the guide."
                    )

    def check_summed_visible(self, model: poutine.Trace) -> None:
        """Raise if a site was computed from a summed-out one and does not have its dimension, or may have another's.

        Raises:
            InvalidProgram: names both.
        """
        if not self._summed:
            return
        keys = {name: model.nodes[name]["infer"] for name in self._summed}
        for node in model.nodes.values():
            if "_dim_to_id" not in node.get("infer", {}):
                continue
            seen, sizes = {*node["infer"]["_dim_to_id"].values()}, _sizes(node)
            origins = self.following.origins([*_tensors_in((node["fn"], node["value"], node["mask"]))])
            for name, origin in self._summed.items():
                dim = keys[name]["_enumerate_dim"]
                if not origins & origin or model.nodes[name]["fn"].enumerate_support(expand=False).shape[0] == 1:
                    continue
                if keys[name]["_dim_to_id"][dim] not in seen:
                    raise InvalidProgram(
                        f"Site '{node['name']}' depends on the summed-out site '{name}', which pyro.markov has left "
                        "behind. Write pyro.markov(…, history=…) with as many steps as the site looks back."
                    )
                if sizes.get(dim, 1) == 1:
                    raise InvalidProgram(
                        f"Site '{node['name']}' was computed from the summed-out site '{name}', and no longer has a "
                        f"number for each value of it, as after a sum, a mean or a reshape. Keep dimension {dim}, in "
                        f"which the values stand, or draw '{name}' in the guide."
                    )

    def _of_density(self, site: Site) -> Origins:
        try:
            return self.following.origins(site.density)
        except (NotImplementedError, KeyError):  # as of a flow without an inverse
            return 0


def _tensors_in(item: Any) -> Iterator[Tensor]:
    """The tensors that distributions, transforms, and lists of them are made of."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, Distribution | Transform):
        yield from _tensors_in([*vars(item).values()])
    elif isinstance(item, list | tuple):
        for part in item:
            yield from _tensors_in(part)


def _sizes(node: Mapping[str, Any]) -> dict[int, int]:
    """The size of each dimension of a site's log density, counted from the right."""
    fn, value, mask = node["fn"], node["value"], node["mask"]
    shapes = [fn.batch_shape, value.shape[: value.dim() - len(fn.event_shape)]]
    shapes += [mask.shape] if isinstance(mask, Tensor) else []
    sizes: dict[int, int] = {}
    for shape in shapes:
        for dim in range(-len(shape), 0):
            sizes[dim] = max(sizes.get(dim, 1), shape[dim])
    return sizes


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
