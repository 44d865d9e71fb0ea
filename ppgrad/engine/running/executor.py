"""Run a program over all lanes, and again for each alternative that an estimator asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.utils._pytree import tree_map

from ppgrad.core import (
    InvalidInput,
    Memory,
    PpgradError,
    TooManyBranches,
)
from ppgrad.core.generators import draws_up_front, generator_state, restore_generators
from ppgrad.engine.assignment.assignment import Assignment
from ppgrad.engine.dependence.dependence import Dependence
from ppgrad.engine.program.parameters import include_registered
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.branches import Run, attach_alternatives
from ppgrad.engine.running.enumerating import PlatesUnknown, Summing
from ppgrad.engine.running.execution import run, sites_of
from ppgrad.engine.running.fixed_parameters import stopped_terms
from ppgrad.engine.running.followed import follow, order_of
from ppgrad.engine.running.grid import Grid, GridSite, most_coupled
from ppgrad.engine.running.handed_over import WrittenTo
from ppgrad.engine.running.kept import keep
from ppgrad.engine.running.lanes import LaneTensors, note_of_loop, vectorizable, vectorized
from ppgrad.engine.running.record import Record, record_of
from ppgrad.engine.running.sampler import Branch, GridGrew, Sampler, SharedNoise, Sizes
from ppgrad.engine.running.shared_noise import NoiseSite, SubsampledPlate, shared_noise
from ppgrad.engine.running.site import Site
from ppgrad.engine.running.stacking import with_lanes
from ppgrad.engine.running.summed_out import outside_of_sums
from ppgrad.engine.running.validity import check_run

BRANCHES_AT_ONCE = 4096
"""How many grid points of one particle run together."""

Costs = Callable[[Sequence[Site]], Sequence[Tensor | None]]
"""An objective's own part of a run: the cost of each site, or None."""


@dataclass(frozen=True)
class Inputs:
    """What a run takes beside the program: see `Executor.execute`. The distributions may be checked after it."""

    token: Tensor | float
    replacements: Mapping[int, Tensor]
    memory: Mapping[str, Memory]
    checks_after: bool = False


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
        splits_slices: but for slices of plates that share no draw; each has a number of its own.
        checks_after: the distributions are checked once after the run, not one by one while it runs.
        together: densities that are alike are evaluated in one call; False to see the gradient of each.
        bounded: the sites whose values may leave the support where distributions cannot check them.
        copies: the program writes into what it draws or hands over, so that sites keep copies.
        own_state: what of it changes from run to run without torch's knowledge, in words; None for nothing.
        summing: where the values of sites that are summed out of the model lie; None where none is.
    """

    program: Program
    assignment: Assignment
    costs: Costs
    sizes: Sizes
    max_branches: int
    vectorize: bool
    couples_lanes: bool = False
    splits_slices: bool = False
    grid: Grid = field(default_factory=lambda: Grid({}, {}))
    alternatives: dict[str, int] = field(default_factory=dict)
    max_looped: int | None = None
    discounts: Callable[[Sequence[Site]], Sequence[float]] | None = None
    noises: dict[str, NoiseSite | SubsampledPlate] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    checks_after: bool = True
    together: bool = True
    bounded: frozenset[str] = frozenset()
    copies: bool = False
    own_state: str | None = None
    dependences: dict[tuple[Any, ...], Dependence] = field(default_factory=dict)
    summing: Summing | None = None

    def __post_init__(self) -> None:
        self.costs = outside_of_sums(self.costs)

    @property
    def particles(self) -> int:
        """How many lanes there are for each grid point."""
        return self.sizes.num_particles * self.sizes.num_importance

    @property
    def _stacks(self) -> bool:
        """Whether what is alike is computed in one call: a compiler fuses many calls better than one of a stack."""
        return self.together and not draws_up_front()

    @property
    def grid_points(self) -> int:
        """How many lanes one particle has."""
        return self.grid.points

    @property
    def branches(self) -> int:
        """Program executions for one lane: they multiply over a grid, and add up over alternatives."""
        return self.grid_points * (1 + sum(self.alternatives.values()))

    @property
    def evaluations(self) -> int:
        """Program executions for one gradient."""
        return self.particles * self.branches

    def execute(
        self,
        token: Tensor | float = 0.0,
        replacements: Mapping[int, Tensor] | None = None,
        memory: Mapping[str, Memory] | None = None,
    ) -> list[Record]:
        """Run all lanes.

        Args:
            token: a zero that depends on the lane of an enclosing vmap, or a number outside of one.
            replacements: the lane's tensor for the ``id`` of each parameter.
            memory: what is remembered of each site.
        """
        inputs = Inputs(token, replacements or {}, memory or {})
        state = generator_state()
        checks_after = self.checks_after and dist.is_validation_enabled() and not draws_up_front()
        if isinstance(token, Tensor) or not checks_after:
            return self._grown(inputs, state)
        try:
            with pyro.validation_enabled(False):
                return self._grown(replace(inputs, checks_after=True), state)
        except PpgradError:
            raise
        except Exception:
            restore_generators(state)
        records = self._grown(inputs, state)  # the distributions' own checks say what is wrong
        self.checks_after = False  # nothing was, and would not be the next time
        return records

    def _grown(self, inputs: Inputs, state: Any) -> list[Record]:
        while True:
            try:
                return self._execute(inputs, state)
            except (GridGrew, SharedNoise, WrittenTo, PlatesUnknown) as more:
                self.grow(more)
                restore_generators(state)  # what is drawn does not depend on what was learned before

    def _execute(self, inputs: Inputs, state: Any) -> list[Record]:
        indices = self.grid.indices()
        uniforms = shared_noise(self.noises, self.particles, self.sizes.num_importance)
        if self.noises:
            state = generator_state()

        def all_lanes(branch: Branch | None) -> Run:
            return self._vectorized(inputs, indices, uniforms, branch)

        if isinstance(inputs.token, Tensor):
            return [self._record(self._with_alternatives(all_lanes, state, in_vmap=True))]
        if self.vectorize and (self.particles, self.grid_points) != (1, 1):
            try:
                with vectorizable():
                    return [self._record(self._with_alternatives(all_lanes, state))]
            except (GridGrew, SharedNoise, WrittenTo, PlatesUnknown, PpgradError):
                raise
            except Exception as error:
                if draws_up_front():
                    raise
                self.fall_back(error)
                restore_generators(state)
        if self.max_looped is not None and self.grid_points > self.max_looped:
            raise InvalidInput(f"Its {self.grid_points} branches would run in a loop.")
        runs: list[Run] = []
        for particle in range(self.particles):
            noise = {name: uniform[particle] for name, uniform in uniforms.items()}
            for point in range(self.grid_points):
                index = {name: column[point] for name, column in indices.items()}

                def one_lane(
                    branch: Branch | None, index: dict[str, Tensor] = index, noise: dict[str, Tensor] = noise
                ) -> Run:
                    own = {} if branch is None or branch.shift is None else {"shift": branch.shift[0, 0]}
                    begin = generator_state()
                    run = self._lane(inputs, index, noise, branch, own)
                    if structure_of_run(run) not in self.dependences:
                        axes = self.grid.axes
                        self._follow(lambda: self._lane(inputs, index, noise, branch, own, follows=True), begin)
                        if self.grid.axes != axes:  # sites that shared an axis are known not to be apart
                            name, site = next(iter(self.grid.sites.items()))
                            raise GridGrew(name, site.size, site.device)
                    if inputs.checks_after and branch is None:
                        check_run(run.sites)
                    return Run(run.sites, with_lanes(run.tensors, self._stacks))

                start = generator_state() if runs else state
                runs.append(self._with_alternatives(one_lane, start, in_loop=True))
        return self._stacked(runs)

    def _follow(self, lane: Callable[[], Run], begin: Any) -> None:
        """Run a lane again from the generators' state ``begin``, to learn what depends on what in a new structure."""
        end = generator_state()
        restore_generators(begin)
        try:
            lane()
        finally:
            restore_generators(end)

    def heed_model(self, guide: Trace, asked: Mapping[str, Any]) -> bool:
        """Take over the estimators that the model's sites ask for draws of the guide; whether to begin anew."""
        if not self.assignment.heed_model(guide.nodes, asked):
            return False
        self.grid, self.noises = Grid({}, {}), {}
        return True

    def learn(self, dependence: Dependence) -> None:
        """Take note of what depends on what in one structure of the program."""
        self.dependences[dependence.sites] = dependence
        self.grid = Grid.of(self.grid.sites, self.dependences.values())

    def fall_back(self, error: Exception) -> None:
        """Run lanes in a loop from now on, and say why."""
        self.vectorize = False
        note_of_loop(self.program.model, error)

    def _with_alternatives(
        self, lanes: Callable[[Branch | None], Run], start: Any, in_vmap: bool = False, in_loop: bool = False
    ) -> Run:
        """The program as drawn, with the costs of each alternative beside the site that asked for it.

        ``start`` is the state that the generators are in.
        """
        run = lanes(None)
        if not any(site.drawn is not None and site.drawn.alternatives for site in run.sites):
            return run
        end = generator_state()

        def replay(branch: Branch) -> Record:
            restore_generators(start)
            with pyro.validation_enabled(False):  # a relaxed value may lie outside of the support
                return self._record(lanes(branch))

        try:
            record = self._record(run)
            apart = record.apart(self.splits_slices) if self.couples_lanes else None
            attach_alternatives(run, record, replay, self._count_alternatives, apart, in_vmap, in_loop)
        finally:
            restore_generators(end)
        return run

    def _vectorized(
        self,
        inputs: Inputs,
        indices: dict[str, Tensor],
        uniforms: dict[str, Tensor],
        branch: Branch | None,
    ) -> Run:
        particles, points = self.particles, self.grid_points
        sites: list[Site] = []

        def lane(token: Any, index: dict[str, Tensor], noise: dict[str, Tensor], own: dict[str, Tensor]) -> Any:
            nonlocal sites
            run = self._lane(replace(inputs, token=token), index, noise, branch, own)
            sites = run.sites
            return run.tensors

        def particle(inner: Any, noise: dict[str, Tensor], own: dict[str, Tensor]) -> Any:
            token = inputs.token + inner
            if points == 1:
                return lane(token, _first(indices), noise, _first(own))
            return vectorized(
                lambda last, i, x: lane(token + last, i, noise, x), indices, own, lanes=points, at_once=BRANCHES_AT_ONCE
            )

        own = {} if branch is None or branch.shift is None else {"shift": branch.shift}
        if particles == 1:
            tensors = tree_map(lambda x: x[None], particle(0.0, _first(uniforms), _first(own)))
        else:
            tensors = vectorized(particle, uniforms, own, lanes=particles)
        if points == 1:
            tensors = tree_map(lambda x: x[:, None], tensors)
        return Run(sites, tensors)

    def _lane(
        self,
        inputs: Inputs,
        index: dict[str, Tensor],
        noise: Mapping[str, Tensor],
        branch: Branch | None,
        own: Mapping[str, Tensor],
        follows: bool = False,
    ) -> Run:
        points = {name: site.size for name, site in self.grid.sites.items()}
        unchecked = branch is None and (isinstance(inputs.token, Tensor) or draws_up_front())
        bounded = self.bounded if unchecked else frozenset()
        shift = own.get("shift")
        sampler = Sampler(
            self.assignment,
            self.sizes,
            index,
            None,
            branch,
            shift,
            inputs.memory,
            noise,
            points,
            bounded,
            self.copies,
            self.summing,
        )
        if not isinstance(inputs.token, Tensor) and not inputs.replacements:
            return self._recorded(sampler, branch, follows)
        with LaneTensors(inputs.token, inputs.replacements) as mode:
            run = self._recorded(sampler, branch, follows)
            return Run(run.sites, mode.own(run.tensors))

    def _recorded(self, sampler: Sampler, branch: Branch | None, follows: bool) -> Run:
        if follows:
            followed = follow(self.program, sampler, self.costs)
            self.learn(followed.dependence)
            return Run(followed.sites, [{} for _ in followed.sites])
        traces = run(self.program, sampler)
        include_registered(self.parameters, sampler.parameters)
        sites = sites_of(*traces, sampler)
        tensors = keep(sites, self.costs(sites), self._stacks)
        if self.couples_lanes and branch is None and torch.is_grad_enabled() and any(map(_stops, sites)):
            for one, terms in zip(tensors, stopped_terms(self.program, sampler, traces, self.costs), strict=True):
                one["stopped"] = terms
        return Run(sites, tensors)

    def _stacked(self, runs: list[Run]) -> list[Record]:
        """One record for lanes that ran alike, else a record for each lane."""
        if len(runs) == 1:
            return [self._record(runs[0])]
        if len({run.structure for run in runs}) == 1:
            lanes = (self.particles, self.grid_points)
            tensors = tree_map(lambda *x: torch.cat(x).reshape(*lanes, *x[0].shape[2:]), *(run.tensors for run in runs))
            return [self._record(Run(runs[0].sites, tensors))]
        depth = max(run.depth for run in runs)
        return [self._record(run, depth) for run in runs]

    def _record(self, run: Run, depth: int | None = None) -> Record:
        dependence = self._dependence_of(run)
        self._check_shared(run, dependence)
        discounts = [1.0] * len(run.sites) if self.discounts is None else self.discounts(run.sites)
        return record_of(run, discounts, self.grid, run.depth if depth is None else depth, dependence)

    def _dependence_of(self, run: Run) -> Dependence:
        structure = structure_of_run(run)
        if structure not in self.dependences:  # it was not followed: the order of its sites has to do
            self.learn(order_of(run.sites, [kept.get("cost") for kept in run.tensors]))
        return self.dependences[structure]

    def first_noise(self) -> dict[str, Tensor]:
        """The noise of one particle at every site that shares it."""
        return _first(shared_noise(self.noises, self.particles, self.sizes.num_importance))

    def first_branch(self) -> dict[str, Tensor]:
        """The grid index of the first point at every summed-over site."""
        return {
            name: torch.zeros(site.shape, dtype=torch.long, device=site.device)
            for name, site in self.grid.sites.items()
        }

    def grow(self, grew: GridGrew | SharedNoise | WrittenTo | PlatesUnknown) -> None:
        """Give a summed-over site the points that it needs, one that shares noise its place in it, or all copies."""
        if isinstance(grew, PlatesUnknown):
            assert self.summing is not None
            self.summing.grow(self.program, grew)
            return
        if isinstance(grew, WrittenTo):
            self.copies = True
            return
        if isinstance(grew, SharedNoise):
            self.noises[grew.name] = grew.site
            return
        old = self.grid.sites.get(grew.name)
        joint = grew.joint | (old.joint if old else frozenset())
        sites = {**self.grid.sites, grew.name: GridSite(grew.size, joint, grew.device)}
        self.grid = Grid.of(sites, self.dependences.values())
        if self.dependences:  # before, no two sites are known to share an axis
            self.check_branches()

    def _check_shared(self, run: Run, dependence: Dependence) -> None:
        """Raise `GridGrew` where elements of a plate share grid points, or sites an axis, that they must not share."""
        if not self.grid.sites:
            return
        for i, (site, kept) in enumerate(zip(run.sites, run.tensors, strict=True)):
            if "log_weight" in kept:
                grid = self.grid.sites[site.name]
                if not dependence.coupled(i) <= grid.joint:
                    raise GridGrew(site.name, grid.size, grid.device, dependence.coupled(i))
        if not self.grid.holds_for(dependence):
            name, grid = next(iter(self.grid.sites.items()))
            raise GridGrew(name, grid.size, grid.device)

    def _count_alternatives(self, name: str, count: int) -> None:
        self.alternatives[name] = count
        self.check_branches()

    def check_branches(self) -> None:
        """Raise if a gradient takes more executions than were allowed."""
        if self.branches <= self.max_branches:
            return
        asked = {name: site.points for name, site in self.grid.sites.items()} | self.alternatives
        worst = sorted(asked.items(), key=lambda item: -item[1])[:3]
        listed = ", ".join(f"'{name}' for {count}" for name, count in worst)
        raise TooManyBranches(
            f"The estimators need {self.branches} branches, and max_branches is {self.max_branches}. Most are asked "
            f"for by {listed}.{most_coupled(self.grid.sites, self.dependences.values())} "
            "Choose ScoreFunction() for some of them, or raise max_branches."
        )


def structure_of_run(run: Run) -> tuple[Any, ...]:
    """The structure of a run, equal to the `Structure` of its sites, from what is kept of it."""
    kept = zip(run.sites, run.tensors, strict=True)
    return tuple([(site.name, site.plates, site.sequence, site.is_random, "cost" in tensors) for site, tensors in kept])


def _stops(site: Site) -> bool:
    return site.estimator is not None and site.estimator.needs.fixed_parameters


def _first(lanes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[0] for name, tensor in lanes.items()}
