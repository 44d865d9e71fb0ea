"""The grid of summed-over sites: every joint value of them is a lane."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ppgrad.core import Plates


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
        """How many lanes it asks for."""
        return int(self.size ** math.prod(self.shape))


def grid_indices(grid: Mapping[str, GridSite]) -> dict[str, Tensor]:
    """For each summed-over site its grid index in every lane, shape ``(points, *site.shape)``."""
    if not grid:
        return {}
    device = next(iter(grid.values())).device
    axes = [torch.arange(site.size, device=device) for site in grid.values() for _ in range(math.prod(site.shape))]
    table = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    widths = [math.prod(site.shape) for site in grid.values()]
    columns = torch.split(table, widths, dim=1)
    return {
        name: column.reshape(-1, *site.shape).to(site.device)
        for (name, site), column in zip(grid.items(), columns, strict=True)
    }
