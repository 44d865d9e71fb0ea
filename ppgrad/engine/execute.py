"""Run a program over all lanes: its particles, and the branches that summed-over sites ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ppgrad.core import (
    Draw,
    Estimator,
    InvalidInput,
    InvalidProgram,
    Plates,
    Signal,
    sum_plates,
)
from ppgrad.engine.assign import Assignment
from ppgrad.engine.credit import SequencePath, downstream_costs
from ppgrad.engine.lanes import LaneTensors, note_of_loop, vectorizable, vectorized
from ppgrad.engine.record import GridGrew, Program, Sampler, Site, run, sites_of

Costs = Callable[[Sequence[Site]], Sequence[Tensor | None]]
"""An objective's own part of a run: the cost of each site, or None."""


@dataclass(frozen=True)
class Entry:
    """One site of a `Record`: over all lanes, padded to a common number of plate dimensions."""

    name: str
    plates: Plates
    sequence: SequencePath
    is_random: bool
    estimator: Estimator | None
    cost: Tensor | None
    draw: Draw | None


@dataclass(frozen=True)
class Record:
    """One execution: the sites in program order, all lanes at once.

    Lanes whose programs took different turns come as records of their own.
    """

    entries: tuple[Entry, ...]

    @property
    def costs(self) -> list[Tensor]:
        return [entry.cost for entry in self.entries if entry.cost is not None]

    def served(self) -> list[tuple[Draw, Signal, Estimator]]:
        """Each draw that has a surrogate, with the cost downstream of it."""
        return [
            (entry.draw, Signal(parts, entry.plates), entry.estimator)
            for entry, parts in zip(self.entries, downstream_costs(self.entries), strict=True)
            if entry.draw is not None and entry.estimator is not None
        ]


@dataclass(frozen=True)
class GridSite:
    """A site that is summed over: the points of one element, and the plates whose elements vary jointly."""

    size: int
    joint: Plates

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a grid index: the joint plates' sizes, one elsewhere."""
        depth = max((-plate.dim for plate in self.joint), default=0)
        shape = [1] * depth
        for plate in self.joint:
            shape[plate.dim] = plate.size
        return tuple(shape)

    @property
    def branches(self) -> int:
        return int(self.size ** math.prod(self.shape))


@dataclass
class Executor:
    """Runs one program for one objective, and remembers what it learned of it.

    Args:
        program: the model, the guide and their arguments.
        assignment: the estimators.
        costs: the objective's cost of each site.
        num_particles: how many lanes are averaged.
        max_branches: the most branches that summed-over sites may ask for.
        vectorize: whether lanes may run under vmap.
    """

    program: Program
    assignment: Assignment
    costs: Costs
    num_particles: int
    max_branches: int
    vectorize: bool
    grid: dict[str, GridSite] = field(default_factory=dict)

    @property
    def branches(self) -> int:
        return int(math.prod(site.branches for site in self.grid.values()))

    @property
    def evaluations(self) -> int:
        """Program executions for one gradient."""
        return self.num_particles * self.branches

    def execute(self, token: Tensor | float = 0.0, replacements: Mapping[int, Tensor] | None = None) -> list[Record]:
        """Run all lanes.

        Args:
            token: a zero that depends on the lane of an enclosing vmap, or a number outside of one.
            replacements: the lane's tensor for the ``id`` of each parameter.
        """
        while True:
            try:
                return self._execute(token, replacements or {})
            except GridGrew as grew:
                self.grow(grew)

    def _execute(self, token: Tensor | float, replacements: Mapping[int, Tensor]) -> list[Record]:
        indices = self._indices()
        lanes = (self.num_particles, self.branches)
        enclosed = isinstance(token, Tensor)
        if lanes != (1, 1) and (enclosed or self.vectorize):
            if enclosed:
                return [self._vectorized(token, replacements, indices)]
            state = pyro.util.get_rng_state()
            try:
                with vectorizable():
                    return [self._vectorized(token, replacements, indices)]
            except GridGrew:
                raise
            except Exception as error:
                self.fall_back(error)
                pyro.util.set_rng_state(state)
        runs = [
            self._lane(token, replacements, {name: index[branch] for name, index in indices.items()})
            for _ in range(lanes[0])
            for branch in range(lanes[1])
        ]
        return self._stacked(runs)

    def fall_back(self, error: Exception) -> None:
        """Run lanes in a loop from now on, and say why."""
        self.vectorize = False
        note_of_loop(self.program.model, error)

    def _vectorized(
        self, token: Tensor | float, replacements: Mapping[int, Tensor], indices: dict[str, Tensor]
    ) -> Record:
        particles, branches = self.num_particles, self.branches
        sites: list[Site] = []

        def lane(token: Any, index: dict[str, Tensor]) -> Any:
            nonlocal sites
            sites, tensors = self._lane(token, replacements, index)
            return tensors

        def particle(inner: Any) -> Any:
            if branches == 1:
                return lane(token + inner, {name: i[0] for name, i in indices.items()})
            return vectorized(lambda last, i: lane(token + inner + last, i), indices, lanes=branches)

        if particles == 1:
            tensors = tree_map(lambda x: x[None], particle(0.0))
        else:
            tensors = vectorized(particle, lanes=particles)
        if branches == 1:
            tensors = tree_map(lambda x: x[:, None], tensors)
        return self._record(sites, tensors)

    def _lane(
        self, token: Tensor | float, replacements: Mapping[int, Tensor], index: dict[str, Tensor]
    ) -> tuple[list[Site], list[dict[str, Any]]]:
        sampler = Sampler(self.assignment, self.num_particles, index)
        if not isinstance(token, Tensor) and not replacements:
            return self._recorded(sampler)
        with LaneTensors(token, replacements) as mode:
            sites, tensors = self._recorded(sampler)
            return sites, mode.own(tensors)

    def _recorded(self, sampler: Sampler) -> tuple[list[Site], list[dict[str, Any]]]:
        sites = sites_of(*run(self.program, sampler), sampler)
        tensors = []
        for site, cost in zip(sites, self.costs(sites), strict=True):
            kept: dict[str, Any] = {} if cost is None else {"cost": cost}
            estimator = site.estimator
            if estimator is not None and site.drawn is not None:
                if site.drawn.grid_index is not None:
                    kept["log_weight"] = estimator.grid_log_weight(site.fn, site.value, site.drawn.grid_index)
                elif type(estimator).surrogate is not Estimator.surrogate:
                    kept |= {"value": site.value, "log_prob": site.density, "extras": dict(site.drawn.extras)}
                    if site.context is not None:
                        kept["context"] = _tensors_only(site)
            tensors.append(kept)
        return sites, tensors

    def _stacked(self, runs: list[tuple[list[Site], list[dict[str, Any]]]]) -> list[Record]:
        """One record for lanes that ran alike, else a record for each lane."""
        if len({_structure(sites, tensors) for sites, tensors in runs}) == 1:
            shape = (self.num_particles, self.branches)
            tensors = tree_map(lambda *lanes: _stack(lanes, shape), *(tensors for _, tensors in runs))
            return [self._record(runs[0][0], tensors)]
        alone = [(sites, tree_map(lambda x: x[None, None], tensors)) for sites, tensors in runs]
        depth = max(_depth(tensors) for _, tensors in alone)
        return [self._record(sites, tensors, depth) for sites, tensors in alone]

    def _record(self, sites: list[Site], tensors: list[dict[str, Any]], depth: int | None = None) -> Record:
        depth = _depth(tensors) if depth is None else depth
        self._check_shared(sites, tensors)
        # A site not yet reached is shared by all of its branches; its share becomes its weight.
        log_weight: Tensor | float = -math.log(self.branches)
        entries = []
        for site, kept in zip(sites, tensors, strict=True):
            if "log_weight" in kept:
                grid = self.grid[site.name]
                own = sum_plates(padded(kept["log_weight"], depth), grid.joint)
                log_weight = log_weight + own + math.log(grid.branches)
            cost = None
            if "cost" in kept:
                cost = _weighted(padded(kept["cost"], depth), log_weight) if self.grid else padded(kept["cost"], depth)
            draw = None
            if "log_prob" in kept:
                draw = Draw(
                    site.name,
                    kept["value"],
                    padded(kept["log_prob"], depth),
                    site.plates,
                    kept.get("context"),
                    kept["extras"],
                )
            entries.append(Entry(site.name, site.plates, site.sequence, site.is_random, site.estimator, cost, draw))
        return Record(tuple(entries))

    def _indices(self) -> dict[str, Tensor]:
        """For each summed-over site its grid index in every branch, shape ``(branches, *site.shape)``."""
        if not self.grid:
            return {}
        axes = [torch.arange(site.size) for site in self.grid.values() for _ in range(math.prod(site.shape))]
        table = torch.cartesian_prod(*axes).reshape(-1, len(axes))
        indices, start = {}, 0
        for name, site in self.grid.items():
            width = math.prod(site.shape)
            indices[name] = table[:, start : start + width].reshape(-1, *site.shape)
            start += width
        return indices

    def first_branch(self) -> dict[str, Tensor]:
        """The grid index of branch 0 at every summed-over site."""
        return {name: torch.zeros(site.shape, dtype=torch.long) for name, site in self.grid.items()}

    def grow(self, grew: GridGrew) -> None:
        """Give a summed-over site the branches that it needs."""
        old = self.grid.get(grew.name)
        joint = grew.joint | (old.joint if old else frozenset())
        self.grid[grew.name] = GridSite(grew.size, joint)
        self._check_branches()

    def _check_shared(self, sites: list[Site], tensors: list[dict[str, Any]]) -> None:
        """Raise `GridGrew` where elements of a plate share branches that they must not share.

        They may if everything random or costly that comes later lies inside that plate; what comes
        later and outside may have seen several elements at once.
        """
        later: Plates | None = None
        for site, kept in zip(reversed(sites), reversed(tensors), strict=True):
            if "log_weight" in kept and later is not None:
                grid = self.grid[site.name]
                if not site.plates - later <= grid.joint:
                    raise GridGrew(site.name, grid.size, site.plates - later)
            if "cost" in kept or site.is_random:
                later = site.plates if later is None else later & site.plates

    def _check_branches(self) -> None:
        if self.branches > self.max_branches:
            worst = sorted(self.grid.items(), key=lambda item: -item[1].branches)[:3]
            asked = ", ".join(f"'{name}' for {site.branches}" for name, site in worst)
            raise InvalidInput(
                f"Summing over sites needs {self.branches} branches, and max_branches is {self.max_branches}. "
                f"Most are asked for by {asked}. Choose ScoreFunction() for some of them, or raise max_branches."
            )


def _depth(tensors: list[dict[str, Any]]) -> int:
    """The number of plate dimensions of the deepest term."""
    terms = (kept[key] for kept in tensors for key in ("cost", "log_prob", "log_weight") if key in kept)
    return max((term.dim() - 2 for term in terms), default=0)


def padded(tensor: Tensor, depth: int) -> Tensor:
    """Insert ones between the two lane dimensions and the plates, up to ``depth`` plate dimensions."""
    missing = depth - (tensor.dim() - 2)
    return tensor.reshape(*tensor.shape[:2], *[1] * missing, *tensor.shape[2:]) if missing else tensor


def _weighted(cost: Tensor, log_weight: Tensor | float) -> Tensor:
    weight = torch.as_tensor(log_weight).exp()
    return weight * torch.where(weight > 0, cost, torch.zeros_like(cost))


def _tensors_only(site: Site) -> Any:
    if all(isinstance(leaf, Tensor) for leaf in tree_leaves(site.context)):
        return site.context
    raise InvalidProgram(f"The context of site '{site.name}' holds something that is not a tensor. Pass tensors only.")


def _structure(sites: list[Site], tensors: list[dict[str, Any]]) -> Any:
    return tuple(
        (site.name, site.kind, site.plates, site.sequence, tuple(x.shape for x in tree_leaves(kept)))
        for site, kept in zip(sites, tensors, strict=True)
    )


def _stack(lanes: tuple[Tensor, ...], shape: tuple[int, int]) -> Tensor:
    return lanes[0][None, None] if len(lanes) == 1 else torch.stack(lanes).reshape(*shape, *lanes[0].shape)
