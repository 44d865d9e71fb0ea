"""What an objective asks of the runs of a program, and what each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ppgrad.core import Memory
from ppgrad.engine.assignment.assignment import Assignment
from ppgrad.engine.running.sampler import Sizes
from ppgrad.engine.running.site import Site
from ppgrad.engine.running.summed_out import outside_of_sums


@dataclass(frozen=True)
class Setup:
    """What an objective asks of the runs of a program, before anything is known of the program.

    Args:
        assignment: the estimators.
        costs: the objective's cost of each site of a run, or None.
        discounts: for each site, the discount of the next reward.
        sizes: how many particles are averaged, of how many importance samples each.
        couples_lanes: the objective is no sum over costs: every draw acts on all of it.
        splits_slices: as ``couples_lanes``, but separately for each slice of the plates whose slices share no draw.
    """

    assignment: Assignment
    costs: Callable[[Sequence[Site]], Sequence[Tensor | None]]
    discounts: Callable[[Sequence[Site]], Sequence[float]]
    sizes: Sizes
    couples_lanes: bool = False
    splits_slices: bool = False

    def __post_init__(self) -> None:
        # What is summed out has no cost of its own: the sum has it.
        object.__setattr__(self, "costs", outside_of_sums(self.costs))


@dataclass(frozen=True)
class Inputs:
    """What a run takes beside the program.

    Args:
        token, replacements, memory: see `Executor.execute`.
        checks_after: the run's distributions are checked after it, all at once.
    """

    token: Tensor | float
    replacements: Mapping[int, Tensor]
    memory: Mapping[str, Memory]
    checks_after: bool = False
