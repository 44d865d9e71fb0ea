"""The bias of each component, with its 95% band."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppgrad.analysis.comparison_data import ComparisonData
from ppgrad.analysis.plots.figures import GREY, add_legend, add_title, colour, figure_and_axes, marker, shown_of
from ppgrad.analysis.plots.labels import wrapped
from ppgrad.analysis.statistics import Z95, Array, paired
from ppgrad.analysis.tables import Places, totals, widest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS = 20
_LINEAR = 15


def plot_bias(comparison: ComparisonData, ax: Axes | None = None) -> Figure:
    """Bias of each component with its 95% band.

    Each component has its own unit, so that all can share an axis: the largest standard error of
    the mean that any of the estimators has there. Without a reference the differences are against the
    estimator of the least variance, paired under common seeds. Beyond 15 units the axis is
    logarithmic (symlog). At most 20 components are drawn, those of the largest variance.

    Args:
        comparison: what to draw.
        ax: where to draw; None makes a figure.

    Raises:
        ValueError: there is only one replicate, which has no variance.
    """
    chosen = widest(comparison, _BARS)
    bias, error, against = _bias(comparison, chosen)
    unit = _units(bias, error)
    labels, count = list(bias), len(chosen)
    height = 1.9 + count * max(0.34, 0.13 * len(labels) + 0.1)
    own = ax
    figure, ax = figure_and_axes(ax, (7.6, min(height, 14)))
    rows = np.arange(count)
    offsets = np.linspace(-0.32, 0.32, len(labels)) if len(labels) > 1 else np.zeros(1)
    for place, label in enumerate(labels):
        ax.errorbar(
            bias[label] / unit,
            rows + offsets[place],
            xerr=Z95 * error[label] / unit,
            fmt=marker(place),
            color=colour(place),
            markersize=4,
            elinewidth=1.4,
            capsize=0,
            label=label,
        )
    for row in rows[1::2]:
        ax.axhspan(row - 0.5, row + 0.5, color="#f3f3f3", zorder=-2, linewidth=0)
    ax.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0, label=against)
    _symmetric(ax, max(np.abs(bias[label] / unit).max() + Z95 * (error[label] / unit).max() for label in labels))
    ax.set_ylim(count - 0.5, -0.5)
    ax.set_yticks(rows, [wrapped(comparison.components[component], 28) for component in chosen])
    ax.tick_params(axis="y", length=0)
    what = "bias" if comparison.reference is not None else "difference"
    ax.set_xlabel(f"{what}, in units of the component's largest standard error of the mean")
    some = shown_of(count, len(comparison.components), "of largest variance")
    note = "Bars: 95% bands; one in twenty misses the line by chance" + some
    add_title(
        figure, own, comparison.name, f"{what.capitalize()} of the mean of {comparison.replicates:,} gradients", note
    )
    add_legend(figure, ax)
    return figure


def _bias(comparison: ComparisonData, chosen: Places) -> tuple[dict[str, Array], dict[str, Array], str]:
    """Bias and its standard error by estimator, each of shape (chosen,), and what the bias is against."""
    if comparison.reference is not None:
        found = {label: comparison.statistics[label] for label in comparison.estimators}
        bias = {label: one.bias[chosen] for label, one in found.items()}
        error = {label: one.bias_mcse[chosen] for label, one in found.items()}
        return bias, error, f"reference ({comparison.reference_kind})"
    least = str(totals(comparison).attrs["least"])
    base = comparison.flat(least)[:, chosen]
    pairs = {label: paired(comparison.flat(label)[:, chosen], base) for label in comparison.estimators}
    return (
        {label: pair.difference for label, pair in pairs.items()},
        {label: pair.mcse for label, pair in pairs.items()},
        f"mean of {least} (no reference)",
    )


def _units(bias: dict[str, Array], error: dict[str, Array]) -> Array:
    """Each component's largest standard error; its largest bias where all errors are 0, and 1 where both are."""
    unit = np.array(list(error.values())).max(0)
    spread = np.abs(np.array(list(bias.values()))).max(0)
    return np.where(unit > 0, unit, np.where(spread > 0, spread, 1))


def _symmetric(ax: Axes, largest: float) -> None:
    """Set limits around 0; the axis is logarithmic beyond 5 units if something lies far out."""
    if largest <= _LINEAR:
        reach = 1.08 * max(largest, 3)
        ax.set_xlim(-reach, reach)
        return
    ax.set_xscale("symlog", linthresh=5, linscale=1.5)
    powers = np.arange(np.ceil(np.log10(1.5 * largest)))
    beyond = 5 * 10 ** powers[:: max(1, len(powers) // 4)]
    ticks = np.concatenate([-beyond[::-1], [0], beyond])
    ax.set_xticks(ticks, [f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(-1.5 * largest, 1.5 * largest)
