"""Run a program over all lanes, and again for each alternative that an estimator asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppgrad.core import InvalidInput, Memory, PpgradError, Unsupported
from ppgrad.core.generators import draws_up_front, generator_state, restore_generators
from ppgrad.engine.program.parameters import include_registered
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.branches import Run, attach_alternatives
from ppgrad.engine.running.enumerating import PlatesUnknown, Summing
from ppgrad.engine.running.execution import run, sites_of
from ppgrad.engine.running.fixed_parameters import stopped_terms
from ppgrad.engine.running.followed import follow
from ppgrad.engine.running.handed_over import WrittenTo
from ppgrad.engine.running.kept import keep
from ppgrad.engine.running.knowledge import Knowledge, structure_of_run
from ppgrad.engine.running.lanes import LaneTensors, in_every_lane, note_of_loop, vectorizable
from ppgrad.engine.running.record import Record, record_of
from ppgrad.engine.running.sampler import Branch, GridTooSmall, Sampler, SharedNoise
from ppgrad.engine.running.setup import Inputs, Setup
from ppgrad.engine.running.shared_noise import shared_noise
from ppgrad.engine.running.site import Site
from ppgrad.engine.running.stacking import with_lanes
from ppgrad.engine.running.validity import check_run


@dataclass
class Executor:
    """Runs one program for one objective, and keeps what it learns of it.

    Lanes are particles × grid points. They run under vmap where they can. Alternatives re-run all
    lanes from the state that the generators had, so that everything upstream of the changed site
    is as it was, and everything downstream shares its noise.

    Args:
        program: the model, the guide and their arguments.
        setup: what the objective asks for.
        known: what runs have shown of the program.
        vectorize: whether lanes may run under vmap.
        together: densities that are alike are evaluated in one call; False to see the gradient of each.
        max_looped: the most grid points to go through in a loop; None for any number.
        parameters: by name, as the first run has met them.
        summing: where the values of sites that are summed out of the model lie; None where none is.
    """

    program: Program
    setup: Setup
    known: Knowledge
    vectorize: bool
    together: bool = True
    max_looped: int | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    summing: Summing | None = None

    @property
    def particles(self) -> int:
        """How many lanes there are for each grid point."""
        return self.setup.sizes.num_particles * self.setup.sizes.num_importance

    @property
    def _stacks(self) -> bool:
        """Whether what is alike is computed in one call: a compiler fuses many calls better than one of a stack."""
        return self.together and not draws_up_front()

    @property
    def branches(self) -> int:
        """Program executions for one lane."""
        return self.known.branches

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
        checks_after = self.known.checks_after and dist.is_validation_enabled() and not draws_up_front()
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
        self.known.checks_after = False  # nothing was, and would not be the next time
        return records

    def _grown(self, inputs: Inputs, state: Any) -> list[Record]:
        while True:
            try:
                return self._execute(inputs, state)
            except (GridTooSmall, SharedNoise, WrittenTo, PlatesUnknown) as more:
                self.grow(more)
                restore_generators(state)  # what is drawn does not depend on what was learned before

    def _execute(self, inputs: Inputs, state: Any) -> list[Record]:
        indices, uniforms = self.known.grid.indices(), self._noise()
        if self.known.noises:
            state = generator_state()

        def all_lanes(branch: Branch | None) -> Run:
            return self._vectorized(inputs, indices, uniforms, branch)

        if isinstance(inputs.token, Tensor):
            return [self._record(self._with_alternatives(all_lanes, state, in_vmap=True))]
        if self.vectorize and (self.particles, self.known.grid.points) != (1, 1):
            try:
                with vectorizable():
                    return [self._record(self._with_alternatives(all_lanes, state))]
            except (GridTooSmall, SharedNoise, WrittenTo, PlatesUnknown, PpgradError):
                raise
            except Exception as error:
                if draws_up_front():
                    raise
                self.fall_back(error)
                restore_generators(state)
        if self.max_looped is not None and self.known.grid.points > self.max_looped:
            raise InvalidInput(f"Its {self.known.grid.points} branches would run in a loop.")
        runs: list[Run] = []
        for particle in range(self.particles):
            noise = {name: uniform[particle] for name, uniform in uniforms.items()}
            for point in range(self.known.grid.points):
                index = {name: column[point] for name, column in indices.items()}
                one_lane = partial(self._looped, inputs, index, noise)
                start = generator_state() if runs else state
                runs.append(self._with_alternatives(one_lane, start, in_loop=True))
        return self._stacked(runs)

    def _looped(self, inputs: Inputs, index: dict[str, Tensor], noise: dict[str, Tensor], branch: Branch | None) -> Run:
        """One lane by itself, which is followed where its structure is a new one."""
        own = {} if branch is None or branch.shift is None else {"shift": branch.shift[0, 0]}
        begin = generator_state()
        run = self._lane(inputs, index, noise, branch, own)
        if structure_of_run(run) not in self.known.dependences:
            axes = self.known.grid.axes
            self._follow(lambda: self._lane(inputs, index, noise, branch, own, follows=True), begin)
            if self.known.grid.axes != axes:  # sites that shared an axis are known not to be apart
                name, site = next(iter(self.known.grid.sites.items()))
                raise GridTooSmall(name, site.size, site.device)
        if inputs.checks_after and branch is None:
            check_run(run.sites)
        return Run(run.sites, with_lanes(run.tensors, self._stacks))

    def _follow(self, lane: Callable[[], Run], begin: Any) -> None:
        """Run a lane again from the generators' state ``begin``, to learn what depends on what in a new structure."""
        end = generator_state()
        restore_generators(begin)
        try:
            lane()
        finally:
            restore_generators(end)

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
            try:
                restore_generators(start)
            except Unsupported as error:  # compiled, where some noise cannot be had again
                raise Unsupported(f"The estimator of site '{branch.site}' asks for other values. {error}") from None
            with pyro.validation_enabled(False):  # a relaxed value may lie outside of the support
                return self._record(lanes(branch))

        try:
            record = self._record(run)
            apart = record.apart(self.setup.splits_slices) if self.setup.couples_lanes else None
            attach_alternatives(run, record, replay, self.known.count_alternatives, apart, in_vmap, in_loop)
        finally:
            restore_generators(end)
        return run

    def _vectorized(
        self, inputs: Inputs, indices: dict[str, Tensor], uniforms: dict[str, Tensor], branch: Branch | None
    ) -> Run:
        sites: list[Site] = []

        def lane(token: Any, index: dict[str, Tensor], noise: dict[str, Tensor], own: dict[str, Tensor]) -> Any:
            nonlocal sites
            run = self._lane(replace(inputs, token=inputs.token + token), index, noise, branch, own)
            sites = run.sites
            return run.tensors

        own = {} if branch is None or branch.shift is None else {"shift": branch.shift}
        tensors = in_every_lane(lane, indices, uniforms, own, self.particles, self.known.grid.points)
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
        setup, known = self.setup, self.known
        points = {name: site.size for name, site in known.grid.sites.items()}
        unchecked = branch is None and (isinstance(inputs.token, Tensor) or draws_up_front())
        bounded = known.bounded if unchecked else frozenset()
        shift = own.get("shift")
        given = setup.assignment, setup.sizes, index, None, branch, shift, inputs.memory, noise
        sampler = Sampler(*given, points, bounded, known.copies, self.summing)
        if not isinstance(inputs.token, Tensor) and not inputs.replacements:
            return self._recorded(sampler, branch, follows)
        with LaneTensors(inputs.token, inputs.replacements) as mode:
            run = self._recorded(sampler, branch, follows)
            return Run(run.sites, mode.own(run.tensors))

    def _recorded(self, sampler: Sampler, branch: Branch | None, follows: bool) -> Run:
        if follows:
            followed = follow(self.program, sampler, self.setup.costs)
            self.known.learn(followed.dependence)
            return Run(followed.sites, [{} for _ in followed.sites])
        traces = run(self.program, sampler)
        include_registered(self.parameters, sampler.parameters)
        sites = sites_of(*traces, sampler)
        tensors = keep(sites, self.setup.costs(sites), self._stacks)
        if self.setup.couples_lanes and branch is None and torch.is_grad_enabled() and any(map(_stops, sites)):
            for one, terms in zip(tensors, stopped_terms(self.program, sampler, traces, self.setup.costs), strict=True):
                one["stopped"] = terms
        return Run(sites, tensors)

    def _stacked(self, runs: list[Run]) -> list[Record]:
        """One record for lanes that ran alike, else a record for each lane."""
        if len(runs) == 1:
            return [self._record(runs[0])]
        if len({run.structure for run in runs}) == 1:
            lanes = (self.particles, self.known.grid.points)
            tensors = tree_map(lambda *x: torch.cat(x).reshape(*lanes, *x[0].shape[2:]), *(run.tensors for run in runs))
            return [self._record(Run(runs[0].sites, tensors))]
        depth = max(run.depth for run in runs)
        return [self._record(run, depth) for run in runs]

    def _record(self, run: Run, depth: int | None = None) -> Record:
        dependence = self.known.dependence_of(run)
        discounts = self.setup.discounts(run.sites)
        return record_of(run, discounts, self.known.grid, run.depth if depth is None else depth, dependence)

    def _noise(self) -> dict[str, Tensor]:
        return shared_noise(self.known.noises, self.particles, self.setup.sizes.num_importance)

    def grow(self, missing: GridTooSmall | SharedNoise | WrittenTo | PlatesUnknown) -> None:
        """Make room for what a run was lacking."""
        if isinstance(missing, PlatesUnknown) and self.summing is not None:
            self.summing.grow(self.program, missing)
        elif not isinstance(missing, PlatesUnknown):
            self.known.grow(missing)

    def first_noise(self) -> dict[str, Tensor]:
        """The noise of one particle at every site that shares it."""
        return {name: uniform[0] for name, uniform in self._noise().items()}


def _stops(site: Site) -> bool:
    return site.estimator is not None and site.estimator.needs.fixed_parameters
