"""What a program's draws and costs were computed from, as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ppgrad.analysis.plots.dependence import plot_sites

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class SiteDependence:
    """One site of a program.

    Args:
        name: the site.
        in_guide: whether it is the guide's.
        is_draw: whether another run would draw another value.
        has_cost: whether the objective has a term there.
        plates: names of the vectorized plates around it.
        estimator: what serves it, as one would write it; nothing where nothing has to be estimated.
        computed_from: the draws that its distribution and its cost were computed from directly, by name.
        charged_with: for a draw, the sites whose costs it is charged with, as they are named in the table.
        coupled: plates whose slices share a cost that depends on the draw.
    """

    name: str
    in_guide: bool
    is_draw: bool
    has_cost: bool
    plates: tuple[str, ...]
    estimator: str
    computed_from: tuple[str, ...]
    charged_with: tuple[str, ...]
    coupled: tuple[str, ...]


@dataclass(frozen=True)
class ProgramDependence:
    """What depends on what in one structure of a program; `dependence` makes it.

    Args:
        sites: in program order: the guide's, then the model's.
        notes: where a value left torch: what comes after is taken to depend on all draws before it.
    """

    sites: Sequence[SiteDependence]
    notes: Sequence[str] = ()

    @property
    def table(self) -> DataFrame:
        """A row for each site, in program order; the index is (where, site)."""
        from pandas import DataFrame, MultiIndex

        has_guide = any(site.in_guide for site in self.sites)
        wheres = ["guide" if site.in_guide else "model" if has_guide else "program" for site in self.sites]
        index = MultiIndex.from_arrays([wheres, [site.name for site in self.sites]], names=["where", "site"])
        rows = [
            {
                "draw": site.is_draw,
                "cost": site.has_cost,
                "plates": ", ".join(site.plates),
                "estimator": site.estimator,
                "computed_from": ", ".join(site.computed_from),
                "charged_with": ", ".join(site.charged_with),
                "coupled": ", ".join(site.coupled),
            }
            for site in self.sites
        ]
        return DataFrame(rows, index=index)

    def __str__(self) -> str:
        notes = [f"From {note} on: every draw before." for note in self.notes]
        return "\n".join([self.table.to_string(), *notes])

    def plot(self) -> Figure:
        """Draws as circles, costs as squares, plates as frames of a column; an arrow for each direct dependence.

        Sites stand in program order from top to bottom. The picture is meant for some thirty sites; the table for more.
        """
        return plot_sites(
            [(site.name, site.is_draw, site.has_cost, site.plates, site.estimator) for site in self.sites],
            [
                (source, target)
                for target, site in enumerate(self.sites)
                for name in site.computed_from
                for source, other in enumerate(self.sites)
                if other.is_draw and other.name == name and source != target
            ],
            "; ".join(f"program order from {note} on" for note in self.notes),
        )
