"""A record: what one execution leaves, all lanes at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppgrad.core import Draw, Estimator, Plates, Signal, sum_plates
from ppgrad.core.draw import Chain
from ppgrad.engine.dependence.dependence import Dependence, Part, SequencePath
from ppgrad.engine.dependence.sums import Sums, members
from ppgrad.engine.running.branches import Run, event_dim_of
from ppgrad.engine.running.grid import Grid

Served = tuple[Draw, Signal, Estimator]


@dataclass(frozen=True)
class Stopped:
    """Of one site, as functions of the values drawn alone: its cost, and its density if it is random."""

    cost: Tensor | None
    density: Tensor | None


class Entry(NamedTuple):
    """One site of a `Record`: over all lanes, padded to a common number of plate dimensions.

    ``active`` is false where nothing depends on the draw, None where the program does not say.
    """

    name: str
    plates: Plates
    sequence: SequencePath
    is_random: bool
    is_summed_over: bool
    estimator: Estimator | None
    cost: Tensor | None
    draw: Draw | None
    alternatives: Tensor | None
    base: Tensor | None
    relaxed: Tensor | None
    gradients: Tensor | None
    stopped: Stopped | None = None
    reward: Tensor | None = None
    active: Tensor | None = None


@dataclass(frozen=True)
class Record:
    """One execution: the sites in program order, all lanes at once, and what depends on what among them.

    ``subsampling`` says how many slices each one stands for, by the name of a plate that is subsampled.

    Lanes whose programs took different turns come as records of their own.
    """

    entries: tuple[Entry, ...]
    dependence: Dependence
    subsampling: Mapping[str, float] = field(default_factory=dict)

    def parts(self, splits: bool) -> tuple[Part, ...]:
        """The sites in parts that share no draw, if it ``splits``, and the plates whose slices share none either.

        Where an estimator differentiates the cost of another run, or sums over a site, all is one part.
        """
        served = [entry.estimator for entry in self.entries if entry.estimator is not None]
        if splits and not any(one.needs.relaxed or one.needs.slopes for one in served):
            return self.dependence.parts
        return (Part((1 << len(self.entries)) - 1, frozenset()),)

    def apart(self, splits: bool) -> list[Plates]:
        """For each site the plates around it whose slices share no draw."""
        parts = self.parts(splits)
        return [next(part.plates for part in parts if part.sites >> i & 1) for i in range(len(self.entries))]

    @property
    def costs(self) -> list[Tensor]:
        return [entry.cost for entry in self.entries if entry.cost is not None]

    def downstream(self, detached: bool = False) -> list[Sums]:
        """For each site the costs that its draw reaches, added up by the plates in which slices are apart.

        A site that is not random has an empty list. ``detached``: the sums carry no gradient.
        """
        costs: list[Any] = [entry.cost for entry in self.entries]
        if detached:
            costs = [None if cost is None else cost.detach() for cost in costs]
        found: list[Sums] = [{}] * len(costs)
        sums = self.dependence.downstream.sums(costs)
        for place, sum_ in zip(reversed(self.dependence.draws), sums, strict=True):
            found[place] = sum_
        return found

    def upstream(self) -> list[tuple[Sums, Sums]]:
        """For each site the log densities of the draws that reach its value, and of those that reach its cost."""
        densities: list[Any] = [None if entry.draw is None else entry.draw.log_prob for entry in self.entries]
        scored = sum(1 << i for i, density in enumerate(densities) if density is not None)
        sums = self.dependence.upstream(scored).sums(densities)
        return list(zip(sums[::2], sums[1::2], strict=True))

    def with_scores(self) -> Record:
        """The same record where a draw's cost also has the gradient that its score passes on to what is upstream."""
        entries = []
        for entry, parts in zip(self.entries, self.downstream(detached=True), strict=True):
            if entry.draw is not None:
                density, cost = entry.draw.log_prob, entry.cost
                score = (density - density.detach()) * Signal(parts, entry.plates, like=density).value
                entry = entry._replace(cost=score if cost is None else cost + score)
            entries.append(entry)
        scored = tuple([entry.draw is not None for entry in entries])
        return Record(tuple(entries), self.dependence.with_scores(scored), self.subsampling)

    def served(self) -> list[Served]:
        """Each draw that has a surrogate, with the cost downstream of it."""
        if all(entry.draw is None for entry in self.entries):
            return []
        served: list[Served] = []
        chains: dict[Any, Chain] = {}
        for entry, parts in zip(self.entries, self.downstream(detached=True), strict=True):
            if entry.draw is None or entry.estimator is None:
                continue
            signal = Signal(
                parts,
                entry.plates,
                entry.alternatives,
                entry.base,
                entry.relaxed,
                entry.gradients,
                like=entry.draw.log_prob,
            )
            if entry.estimator.needs.chain:  # for the others draws and signals would hold each other in memory
                chains.setdefault((entry.estimator.chained_by, entry.plates), Chain()).append(entry.draw, signal)
            served.append((entry.draw, signal, entry.estimator))
        return served


def padded(tensor: Tensor, depth: int, batch: int | None = None) -> Tensor:
    """Insert ones behind the two lane dimensions, up to ``depth`` plate dimensions.

    Args:
        tensor: lanes, then ``batch`` dimensions, then anything.
        depth: how many dimensions are to stand where the batch dimensions do.
        batch: how many there are; None for all but the lanes.
    """
    missing = depth - (tensor.dim() - 2 if batch is None else batch)
    return tensor.reshape(*tensor.shape[:2], *[1] * missing, *tensor.shape[2:]) if missing > 0 else tensor


def record_of(run: Run, discounts: Sequence[float], grid: Grid, depth: int, dependence: Dependence) -> Record:
    """The record of one run over all lanes.

    Args:
        run: its sites and what is kept of them, lanes in front.
        discounts: of the rewards that come next, by site.
        grid: the sites that are summed over.
        depth: how many plate dimensions every term is padded to.
        dependence: of the sites on each other.
    """
    weights = _GridWeights(run, grid, depth)
    entries = []
    for i, (site, kept, discount) in enumerate(zip(run.sites, run.tensors, discounts, strict=True)):
        batch = len(site.fn.batch_shape)
        cost = padded(kept["cost"], depth) if "cost" in kept else None
        reward = padded(kept["reward"], depth) if "reward" in kept else None
        if grid.sites:
            log_weight = weights.of(dependence.reaching_cost[i])
            cost = None if cost is None else _weighted(cost, log_weight)
            reward = None if reward is None else _weighted(reward, log_weight).detach()
        active = padded(kept["active"], depth) if "active" in kept else None
        draw = alternatives = base = relaxed = gradients = None
        if "log_prob" in kept:
            draw = Draw(
                site.name,
                padded(kept["value"], depth, batch),
                padded(kept["log_prob"], depth),
                site.plates,
                event_dim_of(site),
                kept.get("context"),
                {key: padded(extra, depth, batch) for key, extra in kept["extras"].items()},
                discount,
                active,
            )
        if "alternatives" in kept:
            alternatives = torch.stack([padded(cost, depth, batch) for cost in kept["alternatives"]])
            base = padded(kept["base"], depth, batch)
            if kept["relaxed"]:
                relaxed = torch.stack(kept["relaxed"])
            if kept["gradients"]:
                gradients = torch.stack([padded(gradient, depth, batch) for gradient in kept["gradients"]])
        entries.append(
            Entry(
                site.name,
                site.plates,
                site.sequence,
                site.is_random,
                site.name in grid.sites,
                site.estimator,
                cost,
                draw,
                alternatives,
                base,
                relaxed,
                gradients,
                _stopped(kept, depth),
                reward=reward,
                active=active,
            )
        )
    subsampling = {name: ratio for site in run.sites for name, ratio in site.subsampling.items()}
    return Record(tuple(entries), dependence, subsampling)


class _GridWeights:
    """The log weight of each lane for a cost, by the summed-over sites that it depends on.

    Lanes that differ in other sites alone share the cost in equal parts.
    """

    def __init__(self, run: Run, grid: Grid, depth: int):
        self._lengths, self._axes = grid.lengths, {}
        self._own: dict[int, Tensor] = {}
        for i, (site, kept) in enumerate(zip(run.sites, run.tensors, strict=True)):
            if "log_weight" in kept:
                self._own[i] = sum_plates(padded(kept["log_weight"], depth), grid.sites[site.name].joint)
                self._axes[i] = grid.axes[site.name]
        self._all = sum(1 << i for i in self._own)
        self._known: dict[int, Tensor | float] = {}

    def of(self, reaching: int) -> Tensor | float:
        sites = reaching & self._all
        if sites not in self._known:
            used = {self._axes[i] for i in members(sites)}
            log_weight: Tensor | float = -sum(math.log(n) for axis, n in enumerate(self._lengths) if axis not in used)
            for i in members(sites):
                log_weight = log_weight + self._own[i]
            self._known[sites] = log_weight
        return self._known[sites]


def _weighted(cost: Tensor, log_weight: Tensor | float) -> Tensor:
    weight = torch.as_tensor(log_weight).exp()
    return weight * torch.where(weight > 0, cost, torch.zeros_like(cost))


def _stopped(kept: Mapping[str, Any], depth: int) -> Stopped | None:
    if "stopped" not in kept:
        return None
    terms = {name: padded(term, depth) for name, term in kept["stopped"].items()}
    return Stopped(terms.get("cost"), terms.get("density"))
