"""Run a program over all lanes, and again for each alternative that an estimator asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ppgrad.core import Draw, Estimator, InvalidInput, InvalidProgram, Plates, PpgradError, Signal, sum_plates
from ppgrad.engine.assign import Assignment
from ppgrad.engine.branches import Run, attach_alternatives, event_dim_of
from ppgrad.engine.credit import SequencePath, downstream_costs
from ppgrad.engine.grid import GridSite, grid_indices
from ppgrad.engine.lanes import LaneTensors, note_of_loop, vectorizable, vectorized
from ppgrad.engine.record import Branch, GridGrew, Program, Sampler, Site, Sizes, run, sites_of
from ppgrad.engine.stopped import Stopped, stopped_terms

Costs = Callable[[Sequence[Site]], Sequence[Tensor | None]]
"""An objective's own part of a run: the cost of each site, or None."""

Served = tuple[Draw, Signal, Estimator]


@dataclass(frozen=True)
class Entry:
    """One site of a `Record`: over all lanes, padded to a common number of plate dimensions."""

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
    in_guide: bool = False
    stopped: Stopped | None = None


@dataclass(frozen=True)
class Record:
    """One execution: the sites in program order, all lanes at once.

    Lanes whose programs took different turns come as records of their own.
    """

    entries: tuple[Entry, ...]

    @property
    def costs(self) -> list[Tensor]:
        return [entry.cost for entry in self.entries if entry.cost is not None]

    def served(self) -> list[Served]:
        """Each draw that has a surrogate, with the cost downstream of it."""
        return [
            (
                entry.draw,
                Signal(parts, entry.plates, entry.alternatives, entry.base, entry.relaxed, entry.gradients),
                entry.estimator,
            )
            for entry, parts in zip(self.entries, downstream_costs(self.entries), strict=True)
            if entry.draw is not None and entry.estimator is not None
        ]


@dataclass
class Executor:
    """Runs one program for one objective, and remembers what it learned of it.

    Lanes are particles × grid points. They run under vmap where they can. Alternatives re-run all
    lanes from the state that the generators had, so that everything upstream of the changed site
    is as it was, and everything downstream shares its noise.

    Args:
        program: the model, the guide and their arguments.
        assignment: the estimators.
        costs: the objective's cost of each site.
        sizes: how many particles are averaged, of how many importance samples each.
        max_branches: the most executions for one lane.
        vectorize: whether lanes may run under vmap.
        max_looped: the most grid points to go through in a loop; None for any number.
        couples_lanes: the objective is no sum over costs: every draw acts on all of it.
    """

    program: Program
    assignment: Assignment
    costs: Costs
    sizes: Sizes
    max_branches: int
    vectorize: bool
    couples_lanes: bool = False
    grid: dict[str, GridSite] = field(default_factory=dict)
    alternatives: dict[str, int] = field(default_factory=dict)
    max_looped: int | None = None

    @property
    def particles(self) -> int:
        """How many lanes there are for each grid point."""
        return self.sizes.num_particles * self.sizes.num_importance

    @property
    def grid_points(self) -> int:
        return int(math.prod(site.points for site in self.grid.values()))

    @property
    def branches(self) -> int:
        """Program executions for one lane: they multiply over a grid, and add up over alternatives."""
        return self.grid_points * (1 + sum(self.alternatives.values()))

    @property
    def evaluations(self) -> int:
        """Program executions for one gradient."""
        return self.particles * self.branches

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
        indices = grid_indices(self.grid)

        def all_lanes(branch: Branch | None) -> Run:
            return self._vectorized(token, replacements, indices, branch)

        if isinstance(token, Tensor):
            return [self._record(self._with_alternatives(all_lanes))]
        if self.vectorize and (self.particles, self.grid_points) != (1, 1):
            state = pyro.util.get_rng_state()
            try:
                with vectorizable():
                    return [self._record(self._with_alternatives(all_lanes))]
            except (GridGrew, PpgradError):
                raise
            except Exception as error:
                self.fall_back(error)
                pyro.util.set_rng_state(state)
        if self.max_looped is not None and self.grid_points > self.max_looped:
            raise InvalidInput(f"Its {self.grid_points} branches would run in a loop.")
        runs = []
        for _ in range(self.particles):
            for point in range(self.grid_points):
                index = {name: column[point] for name, column in indices.items()}

                def one_lane(branch: Branch | None, index: dict[str, Tensor] = index) -> Run:
                    own = {} if branch is None or branch.shift is None else {"shift": branch.shift[0, 0]}
                    run = self._lane(token, replacements, index, branch, own)
                    return Run(run.sites, tree_map(lambda x: x[None, None], run.tensors))

                runs.append(self._with_alternatives(one_lane))
        return self._stacked(runs)

    def fall_back(self, error: Exception) -> None:
        """Run lanes in a loop from now on, and say why."""
        self.vectorize = False
        note_of_loop(self.program.model, error)

    def _with_alternatives(self, lanes: Callable[[Branch | None], Run]) -> Run:
        """The program as drawn, with the costs of each alternative beside the site that asked for it."""
        if not self.assignment.wants_alternatives:
            return lanes(None)
        start = pyro.util.get_rng_state()
        run = lanes(None)
        end = pyro.util.get_rng_state()

        def replay(branch: Branch) -> Record:
            pyro.util.set_rng_state(start)
            with pyro.validation_enabled(False):  # a relaxed value may lie outside of the support
                return self._record(lanes(branch))

        try:
            attach_alternatives(run, self._record(run).entries, replay, self._count_alternatives, self.couples_lanes)
        finally:
            pyro.util.set_rng_state(end)
        return run

    def _vectorized(
        self,
        token: Tensor | float,
        replacements: Mapping[int, Tensor],
        indices: dict[str, Tensor],
        branch: Branch | None,
    ) -> Run:
        particles, points = self.particles, self.grid_points
        sites: list[Site] = []

        def lane(token: Any, index: dict[str, Tensor], own: dict[str, Tensor]) -> Any:
            nonlocal sites
            run = self._lane(token, replacements, index, branch, own)
            sites = run.sites
            return run.tensors

        def particle(inner: Any, own: dict[str, Tensor]) -> Any:
            if points == 1:
                return lane(token + inner, _first(indices), _first(own))
            return vectorized(lambda last, i, x: lane(token + inner + last, i, x), indices, own, lanes=points)

        own = {} if branch is None or branch.shift is None else {"shift": branch.shift}
        if particles == 1:
            tensors = tree_map(lambda x: x[None], particle(0.0, _first(own)))
        else:
            tensors = vectorized(particle, own, lanes=particles)
        if points == 1:
            tensors = tree_map(lambda x: x[:, None], tensors)
        return Run(sites, tensors)

    def _lane(
        self,
        token: Tensor | float,
        replacements: Mapping[int, Tensor],
        index: dict[str, Tensor],
        branch: Branch | None,
        own: Mapping[str, Tensor],
    ) -> Run:
        sampler = Sampler(self.assignment, self.sizes, index, branch=branch, shift=own.get("shift"))
        if not isinstance(token, Tensor) and not replacements:
            return self._recorded(sampler, branch)
        with LaneTensors(token, replacements) as mode:
            run = self._recorded(sampler, branch)
            return Run(run.sites, mode.own(run.tensors))

    def _recorded(self, sampler: Sampler, branch: Branch | None) -> Run:
        traces = run(self.program, sampler)
        sites = sites_of(*traces, sampler)
        tensors = []
        for site, cost in zip(sites, self.costs(sites), strict=True):
            kept: dict[str, Any] = {} if cost is None else {"cost": cost}
            estimator, drawn = site.estimator, site.drawn
            if estimator is not None and drawn is not None:
                if drawn.grid_index is not None:
                    kept["log_weight"] = estimator.grid_log_weight(site.fn, site.value, drawn.grid_index)
                elif type(estimator).surrogate is not Estimator.surrogate and not drawn.is_changed:
                    kept |= {"value": site.value, "log_prob": site.density, "extras": dict(drawn.extras)}
                    if site.context is not None:
                        kept["context"] = _tensors_only(site)
            tensors.append(kept)
        if self.couples_lanes and branch is None and torch.is_grad_enabled() and any(map(_stops, sites)):
            for kept, terms in zip(tensors, stopped_terms(self.program, sampler, traces, self.costs), strict=True):
                kept["stopped"] = terms
        return Run(sites, tensors)

    def _stacked(self, runs: list[Run]) -> list[Record]:
        """One record for lanes that ran alike, else a record for each lane."""
        if len({run.structure for run in runs}) == 1:
            shape = (self.particles, self.grid_points)
            tensors = tree_map(lambda *lanes: _stack(lanes, shape), *(run.tensors for run in runs))
            return [self._record(Run(runs[0].sites, tensors))]
        depth = max(run.depth for run in runs)
        return [self._record(run, depth) for run in runs]

    def _record(self, run: Run, depth: int | None = None) -> Record:
        depth = run.depth if depth is None else depth
        self._check_shared(run)
        # A site not yet reached is shared by all of its grid points; its share becomes its weight.
        log_weight: Tensor | float = -math.log(self.grid_points)
        entries = []
        for site, kept in zip(run.sites, run.tensors, strict=True):
            batch = len(site.fn.batch_shape)
            if "log_weight" in kept:
                grid = self.grid[site.name]
                own = sum_plates(padded(kept["log_weight"], depth), grid.joint)
                log_weight = log_weight + own + math.log(grid.points)
            cost = padded(kept["cost"], depth) if "cost" in kept else None
            if cost is not None and self.grid:
                cost = _weighted(cost, log_weight)
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
                    site.name in self.grid,
                    site.estimator,
                    cost,
                    draw,
                    alternatives,
                    base,
                    relaxed,
                    gradients,
                    site.in_guide,
                    _stopped(kept, depth),
                )
            )
        return Record(tuple(entries))

    def first_branch(self) -> dict[str, Tensor]:
        """The grid index of the first point at every summed-over site."""
        return {name: torch.zeros(site.shape, dtype=torch.long) for name, site in self.grid.items()}

    def grow(self, grew: GridGrew) -> None:
        """Give a summed-over site the points that it needs."""
        old = self.grid.get(grew.name)
        joint = grew.joint | (old.joint if old else frozenset())
        self.grid[grew.name] = GridSite(grew.size, joint)
        self._check_branches()

    def _check_shared(self, run: Run) -> None:
        """Raise `GridGrew` where elements of a plate share grid points that they must not share."""
        for site, kept, later in zip(run.sites, run.tensors, run.plates_of_all_later, strict=True):
            if "log_weight" in kept and later is not None:
                grid = self.grid[site.name]
                if not site.plates - later <= grid.joint:
                    raise GridGrew(site.name, grid.size, site.plates - later)

    def _count_alternatives(self, name: str, count: int) -> None:
        self.alternatives[name] = count
        self._check_branches()

    def _check_branches(self) -> None:
        if self.branches <= self.max_branches:
            return
        asked = {name: site.points for name, site in self.grid.items()} | self.alternatives
        worst = sorted(asked.items(), key=lambda item: -item[1])[:3]
        listed = ", ".join(f"'{name}' for {count}" for name, count in worst)
        raise InvalidInput(
            f"The estimators need {self.branches} branches, and max_branches is {self.max_branches}. Most are asked "
            f"for by {listed}. "
            "Choose ScoreFunction() for some of them, or raise max_branches."
        )


def padded(tensor: Tensor, depth: int, batch: int | None = None) -> Tensor:
    """Insert ones behind the two lane dimensions, up to ``depth`` plate dimensions.

    Args:
        tensor: lanes, then ``batch`` dimensions, then anything.
        depth: how many dimensions are to stand where the batch dimensions do.
        batch: how many there are; None for all but the lanes.
    """
    missing = depth - (tensor.dim() - 2 if batch is None else batch)
    return tensor.reshape(*tensor.shape[:2], *[1] * missing, *tensor.shape[2:]) if missing > 0 else tensor


def _weighted(cost: Tensor, log_weight: Tensor | float) -> Tensor:
    weight = torch.as_tensor(log_weight).exp()
    return weight * torch.where(weight > 0, cost, torch.zeros_like(cost))


def _tensors_only(site: Site) -> Any:
    if all(isinstance(leaf, Tensor) for leaf in tree_leaves(site.context)):
        return site.context
    raise InvalidProgram(f"The context of site '{site.name}' holds something that is not a tensor. Pass tensors only.")


def _stops(site: Site) -> bool:
    return site.estimator is not None and site.estimator.stops_parameters


def _stopped(kept: Mapping[str, Any], depth: int) -> Stopped | None:
    terms = {name: padded(term, depth) for name, term in kept.get("stopped", {}).items()}
    return Stopped(terms.get("cost"), terms.get("density")) if "stopped" in kept else None


def _first(lanes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[0] for name, tensor in lanes.items()}


def _stack(lanes: tuple[Tensor, ...], shape: tuple[int, int]) -> Tensor:
    return lanes[0] if len(lanes) == 1 else torch.cat(lanes).reshape(*shape, *lanes[0].shape[2:])
