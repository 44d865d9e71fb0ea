"""What all pictures share: figures and axes, titles and legends, colours and markers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppgrad.analysis.plots.labels import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito (2008): told apart by colour-blind readers too; markers repeat what colour says."""

GREY = "#666666"

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure of a width and a height in inches, whose layout leaves room for text."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def figure_and_axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Any, Axes]:
    """The axes to draw on and their figure: those given, or new ones of a size in inches."""
    if ax is None:
        ax = new_figure(size).subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return ax.figure, ax


def add_title(figure: Any, ax: Axes | None, name: str, what: str, note: str) -> None:
    """Write a heading over a figure of our own, or over the axes that we were given."""
    lines = int((figure.get_size_inches()[0] if ax is None else 6) * 12.5)
    text = "\n".join(wrapped(part, lines) for part in (name, what, note) if part)
    if ax is None:
        figure.suptitle(text, x=0.012, horizontalalignment="left", fontsize=9.5, linespacing=1.35)
    else:
        ax.set_title(text, fontsize=9.5, loc="left")


def shown_of(shown: int, everything: int, which: str) -> str:
    """What a heading adds where only ``shown`` of all components are drawn, and which ones."""
    return "" if shown == everything else f"; {shown} of {everything:,} components, {which}"


def add_legend(figure: Figure, ax: Axes) -> None:
    """Put the legend of what is drawn on ``ax`` below the figure; nothing labelled makes none."""
    handles, names = ax.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            [wrapped(name, 34) for name in names],
            loc="outside lower center",
            ncols=min(len(names), 4),
            frameon=False,
            fontsize=8,
        )


def colour(place: int) -> str:
    """The colour of the estimator in this place, counted from 0; colours repeat after the palette's last."""
    return PALETTE[place % len(PALETTE)]


def marker(place: int) -> str:
    """The marker of the estimator in this place, counted from 0; markers repeat after the last."""
    return _MARKERS[place % len(_MARKERS)]
