"""The total variance of an estimator against the cost of one gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppgrad.analysis.comparison_data import ComparisonData
from ppgrad.analysis.plots.figures import add_title, colour, figure_and_axes, marker
from ppgrad.analysis.plots.labels import place_labels
from ppgrad.analysis.statistics import Z95, Array
from ppgrad.analysis.tables import totals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_variance_cost(comparison: ComparisonData, ax: Axes | None = None, cost: str = "seconds") -> Figure:
    """Total variance against the cost of one gradient, both logarithmic, with 95% bars.

    Variances are in units of (objective / parameter)², costs in milliseconds or in program executions.
    Along a dotted line variance × cost is one number: moving along it, by averaging more or fewer
    gradients, gains nothing. An estimator without variance is drawn as a triangle on the lower edge.

    Args:
        comparison: what to draw.
        ax: where to draw; None makes a figure.
        cost: ``"seconds"`` or ``"evaluations"``.

    Raises:
        ValueError: ``cost`` is neither of the two, or there is only one replicate, which has no variance.
    """
    if cost not in ("seconds", "evaluations"):
        raise ValueError(f"cost='{cost}' is unknown. Write 'seconds' or 'evaluations'.")
    table = totals(comparison)
    of_one = table["seconds_per_step"] * 1e3 if cost == "seconds" else table[cost]
    costs = np.maximum(of_one.to_numpy(float), 1e-12)
    variance, mcse = table["variance"].to_numpy(), table["variance_mcse"].to_numpy()
    positive = variance[variance > 0]
    floor = positive.min() / 30 if len(positive) else 1.0
    heights = np.where(variance > 0, variance, floor)
    factors = np.where(variance > 0, np.exp(Z95 * mcse / heights), 1)  # a band that cannot reach below zero
    own = ax
    figure, ax = figure_and_axes(ax, (6.6, 4.6))
    _log_axes(ax, costs, np.concatenate([heights / factors, heights * factors]))
    _draw_points(ax, costs, heights, factors, variance > 0)
    _draw_equal_work(ax, (costs * heights)[variance > 0])
    names = [
        _remark(str(label), row["biased"], "" if row["variance"] > 0 else "variance 0")
        for label, row in table.iterrows()
    ]
    unit = "wall time for one gradient, alone [ms]" if cost == "seconds" else "program executions for one gradient"
    ax.set_xlabel(unit)
    ax.set_ylabel("total variance of one gradient\n[(objective / parameter)²]")
    note = f"Dotted: equal variance × {'time' if cost == 'seconds' else 'executions'}; bars: 95% bands"
    add_title(figure, own, comparison.name, "Variance of one gradient against its cost", note)
    place_labels(figure, ax, costs, heights, names)
    return figure


def _draw_points(ax: Axes, costs: Array, heights: Array, factors: Array, positive: Array) -> None:
    """Draw each estimator with its band from height / factor to height × factor; all of shape (estimators,).

    Where no estimator has a variance above 0, the heights mean nothing and the axis has no ticks.
    """
    from matplotlib.ticker import NullLocator

    for place, factor in enumerate(factors):
        ax.errorbar(
            costs[place],
            heights[place],
            yerr=[[heights[place] * (1 - 1 / factor)], [heights[place] * (factor - 1)]],
            fmt=marker(place) if positive[place] else "v",
            color=colour(place),
            markersize=6.5,
            capsize=5,
        )
    if not positive.any():
        ax.yaxis.set_major_locator(NullLocator())
        ax.yaxis.set_minor_locator(NullLocator())


def _draw_equal_work(ax: Axes, products: Array) -> None:
    """Draw dotted lines on which variance × cost is one of these numbers."""
    ends = np.array(ax.get_xlim())
    for product in products:
        ax.plot(
            ends, product / ends, color="#999999", linewidth=0.9, linestyle=":", zorder=-1, scalex=False, scaley=False
        )


def _log_axes(ax: Axes, costs: Array, heights: Array) -> None:
    """Make both axes logarithmic with room around the points, and ticks at 1, 2, 5 where powers of ten are few."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    for values, axis, set_limits in ((costs, ax.xaxis, ax.set_xlim), (heights, ax.yaxis, ax.set_ylim)):
        middle = (np.log10(values.min()) + np.log10(values.max())) / 2
        half = max((np.log10(values.max()) - np.log10(values.min())) / 2 * 1.35, 0.6)
        set_limits(10 ** (middle - half), 10 ** (middle + half))
        axis.set_minor_formatter(NullFormatter())
        if half < 1.5:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}" if 1e-4 < values.min() <= values.max() < 1e5 else LogFormatterSciNotation())


def _remark(label: str, *remarks: str) -> str:
    said = ", ".join(remark for remark in remarks if remark)
    return f"{label} ({said})" if said else label
