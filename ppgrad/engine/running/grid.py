"""The grid of summed-over sites: every joint value of those that share a cost is a lane."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppgrad.core import Plates
from ppgrad.engine.dependence.dependence import Dependence
from ppgrad.engine.dependence.sums import members


@dataclass(frozen=True)
class GridSite:
    """A site that is summed over: the points of one element, and the plates whose elements vary jointly."""

    size: int
    joint: Plates
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a grid index: the joint plates' sizes, one elsewhere."""
        depth = max((-plate.dim for plate in self.joint), default=0)
        shape = [1] * depth
        for plate in self.joint:
            shape[plate.dim] = plate.size
        return tuple(shape)

    @property
    def points(self) -> int:
        """How many joint values it has."""
        return int(self.size ** math.prod(self.shape))


@dataclass(frozen=True)
class Grid:
    """Summed-over sites along axes: the lanes are the product of the axes' points.

    Sites with as many points share an axis where no cost depends on both of them.

    Args:
        sites: by name.
        axes: the axis of each site.
    """

    sites: Mapping[str, GridSite]
    axes: Mapping[str, int]

    @classmethod
    def of(cls, sites: Mapping[str, GridSite], known: Iterable[Dependence]) -> Grid:
        """As few axes as come of going through the sites in order; all their own where nothing is known of them."""
        apart = _never_together(list(sites), known)
        axes: dict[str, int] = {}
        for name in sites:
            taken = {
                axis
                for other, axis in axes.items()
                if frozenset((name, other)) not in apart or sites[other].points != sites[name].points
            }
            axes[name] = next(axis for axis in range(len(sites)) if axis not in taken)
        return cls(dict(sites), axes)

    @property
    def lengths(self) -> list[int]:
        """The points of each axis."""
        by_axis = {axis: self.sites[name].points for name, axis in self.axes.items()}
        return [by_axis[axis] for axis in range(len(by_axis))]

    @property
    def points(self) -> int:
        """How many lanes it asks for."""
        return math.prod(self.lengths)

    def indices(self) -> dict[str, Tensor]:
        """For each site its grid index in every lane, shape ``(points, *site.shape)``."""
        found = {}
        for name, site in self.sites.items():
            place = self._places(self.axes[name], site.device)
            width = math.prod(site.shape)
            digits = site.size ** torch.arange(width - 1, -1, -1, device=site.device)
            found[name] = (place.unsqueeze(-1) // digits % site.size).reshape(-1, *site.shape)
        return found

    def first_indices(self) -> dict[str, Tensor]:
        """For each site its grid index at the first point, of its shape."""
        return {
            name: torch.zeros(site.shape, dtype=torch.long, device=site.device) for name, site in self.sites.items()
        }

    def _places(self, axis: int, device: torch.device) -> Tensor:
        lengths = self.lengths
        lane = torch.arange(self.points, device=device)
        return lane // math.prod(lengths[axis + 1 :]) % lengths[axis]

    def holds_for(self, dependence: Dependence) -> bool:
        """Whether no cost depends on two sites of one axis."""
        sites = [(i, site.name) for i, site in enumerate(dependence.sites) if site.name in self.axes]
        for reaching in dependence.reaching_cost if len(sites) > 1 else ():
            axes = [self.axes[name] for i, name in sites if reaching >> i & 1]
            if len(set(axes)) < len(axes):
                return False
        return True


def _never_together(names: Sequence[str], known: Iterable[Dependence]) -> set[frozenset[str]]:
    """The pairs of sites that some program had both of, and no cost that depends on both."""
    seen: set[frozenset[str]] = set()
    together: set[frozenset[str]] = set()
    for dependence in known:
        there = [(i, site.name) for i, site in enumerate(dependence.sites) if site.is_random and site.name in names]
        seen |= {frozenset((a, b)) for k, (_, a) in enumerate(there) for _, b in there[:k]}
        masks = {reaching for reaching in dependence.reaching_cost if reaching}
        for reaching in masks:
            both = [name for i, name in there if reaching >> i & 1]
            together |= {frozenset((a, b)) for k, a in enumerate(both) for b in both[:k]}
    return seen - together


def most_coupled(sites: Mapping[str, GridSite], known: Iterable[Dependence]) -> str:
    """Which cost depends on the most joint values, and on which summed-over sites: a sentence, or nothing."""
    worst, found = 1, ""
    for dependence in known:
        for cost, reaching in zip(dependence.sites, dependence.reaching_cost, strict=True):
            names = [dependence.sites[i].name for i in members(reaching) if dependence.sites[i].name in sites]
            joint = math.prod(sites[name].points for name in names)
            if cost.has_cost and len(names) > 1 and joint > worst:
                listed = ", ".join(f"'{name}'" for name in names[:3]) + (", …" if len(names) > 3 else "")
                worst, found = joint, f" The cost '{cost.name}' depends on {len(names)} of them together: {listed}."
    return found
