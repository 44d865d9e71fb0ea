"""What the runs of a program have shown of it, for the runs to come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ppgrad.core import TooManyBranches
from ppgrad.engine.dependence.dependence import Dependence
from ppgrad.engine.running.branches import Run
from ppgrad.engine.running.followed import order_of
from ppgrad.engine.running.grid import Grid, GridSite, most_coupled
from ppgrad.engine.running.handed_over import WrittenTo
from ppgrad.engine.running.sampler import GridTooSmall, SharedNoise
from ppgrad.engine.running.shared_noise import NoiseSite, SubsampledPlate


@dataclass
class Knowledge:
    """What the runs of a program have shown of it, for the runs to come.

    Args:
        max_branches: the most executions for one lane: what asks for more is an error.
        grid: the sites that are summed over.
        alternatives: how many runs with another value each site asks for.
        noises: the sites and plates whose noise is drawn for all particles at once.
        dependences: what depends on what, for each structure of the program.
        checks_after: the distributions are checked once after the run, not one by one while it runs.
        bounded: the sites whose values may leave the support where distributions cannot check them.
        copies: the program writes into what it draws or hands over, so that sites keep copies.
        own_state: what of it changes from run to run without torch's knowledge, in words; None for nothing.
    """

    max_branches: int
    grid: Grid = field(default_factory=lambda: Grid({}, {}))
    alternatives: dict[str, int] = field(default_factory=dict)
    noises: dict[str, NoiseSite | SubsampledPlate] = field(default_factory=dict)
    dependences: dict[tuple[Any, ...], Dependence] = field(default_factory=dict)
    checks_after: bool = True
    bounded: frozenset[str] = frozenset()
    copies: bool = False
    own_state: str | None = None

    @property
    def branches(self) -> int:
        """Program executions for one lane: they multiply over a grid, and add up over alternatives."""
        return self.grid.points * (1 + sum(self.alternatives.values()))

    def learn(self, dependence: Dependence) -> None:
        """Take note of what depends on what in one structure of the program."""
        self.dependences[dependence.sites] = dependence
        self.grid = Grid.of(self.grid.sites, self.dependences.values())

    def grow(self, missing: GridTooSmall | SharedNoise | WrittenTo) -> None:
        """Give a summed-over site the points that it needs, one that shares noise its place in it, or all copies."""
        if isinstance(missing, WrittenTo):
            self.copies = True
            return
        if isinstance(missing, SharedNoise):
            self.noises[missing.name] = missing.site
            return
        old = self.grid.sites.get(missing.name)
        joint = missing.joint | (old.joint if old else frozenset())
        sites = {**self.grid.sites, missing.name: GridSite(missing.size, joint, missing.device)}
        self.grid = Grid.of(sites, self.dependences.values())
        if self.dependences:  # before, no two sites are known to share an axis
            self.check_branches()

    def count_alternatives(self, name: str, count: int) -> None:
        """Take note of how many runs the alternatives of a site ask for.

        Raises:
            TooManyBranches: they are more than were allowed.
        """
        self.alternatives[name] = count
        self.check_branches()

    def check_branches(self) -> None:
        """Raise `TooManyBranches` if a gradient takes more executions than were allowed."""
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

    def dependence_of(self, run: Run) -> Dependence:
        """What depends on what in a run.

        Raises:
            GridTooSmall: elements of a plate share grid points that they must not share, or sites an axis.
        """
        structure = structure_of_run(run)
        if structure not in self.dependences:  # it was not followed: the order of its sites has to do
            self.learn(order_of(run.sites, [kept.get("cost") for kept in run.tensors]))
        self._check_shared(run, self.dependences[structure])
        return self.dependences[structure]

    def _check_shared(self, run: Run, dependence: Dependence) -> None:
        """Raise `GridTooSmall` where elements of a plate share grid points, or sites an axis, and must not."""
        if not self.grid.sites:
            return
        for i, (site, kept) in enumerate(zip(run.sites, run.tensors, strict=True)):
            if "log_weight" in kept:
                grid = self.grid.sites[site.name]
                if not dependence.coupled(i) <= grid.joint:
                    raise GridTooSmall(site.name, grid.size, grid.device, dependence.coupled(i))
        if not self.grid.holds_for(dependence):
            name, grid = next(iter(self.grid.sites.items()))
            raise GridTooSmall(name, grid.size, grid.device)


def structure_of_run(run: Run) -> tuple[Any, ...]:
    """The structure of a run, equal to the `Structure` of its sites, from what is kept of it."""
    kept = zip(run.sites, run.tensors, strict=True)
    return tuple([(site.name, site.plates, site.sequence, site.is_random, "cost" in tensors) for site, tensors in kept])
