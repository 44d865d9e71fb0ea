"""Sites of a program in order, with arrows from draws to what was computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ppgrad.analysis.plots.figures import GREY, PALETTE, add_title, figure_and_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = tuple[str, bool, bool, tuple[str, ...], str]
"""A site's name, whether it is a draw, whether it has a cost, its plates, its estimator."""


def plot_sites(sites: Sequence[Drawn], arrows: Sequence[tuple[int, int]], note: str) -> Figure:
    """Draw the sites from top to bottom, and an arc for each arrow; see `ProgramDependence.plot`.

    Args:
        sites: in program order.
        arrows: places of a draw and of what was computed from it.
        note: what the heading adds.
    """
    plates = list(dict.fromkeys(plate for site in sites for plate in site[3]))
    figure, ax = figure_and_axes(None, (7.5, 1.2 + 0.36 * len(sites)))
    longest = max((target - source for source, target in arrows), default=1)
    for source, target in arrows:
        bend = 0.25 + 0.45 * (target - source) / longest
        ax.annotate(
            "",
            xy=(0, -target),
            xytext=(0, -source),
            arrowprops={
                "arrowstyle": "-|>",
                "color": GREY,
                "alpha": 0.75,
                "shrinkA": 7,
                "shrinkB": 7,
                "connectionstyle": f"arc3,rad={bend}",
            },
        )
    for place, (name, is_draw, has_cost, _, estimator) in enumerate(sites):
        colour = PALETTE[0] if is_draw else PALETTE[1]
        face = colour if has_cost else "white"
        ax.plot(0, -place, "o" if is_draw else "s", markersize=10, color=colour, markerfacecolor=face, zorder=3)
        ax.text(0.12, -place, name, verticalalignment="center", fontsize=9)
        ax.text(0.75, -place, estimator, verticalalignment="center", fontsize=8, color=GREY)
    for column, plate in enumerate(plates):
        x = 1.75 + 0.22 * column
        ax.text(x, 0.75, plate, rotation=35, fontsize=8, color=PALETTE[2])
        for place, site in enumerate(sites):
            if plate in site[3]:
                ax.plot([x, x], [-place - 0.5, -place + 0.5], color=PALETTE[2], linewidth=3, solid_capstyle="butt")
    ax.set_xlim(-1.0, 1.9 + 0.22 * len(plates))
    ax.set_ylim(-len(sites) + 0.3, 1.6 if plates else 0.7)
    ax.set_axis_off()
    add_title(
        figure, None, "", "Circles are draws, squares are costs of what is observed or earned; filled: a cost", note
    )
    return figure
