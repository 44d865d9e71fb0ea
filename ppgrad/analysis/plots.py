"""Pictures of a comparison. Figures are made without pyplot, so no backend is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppgrad.analysis.labels import place_labels, wrapped
from ppgrad.analysis.statistics import Z95, Array, paired
from ppgrad.analysis.tables import Places, totals, widest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ppgrad.analysis.comparison import Comparison

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito (2008): told apart by colour-blind readers too; markers repeat what colour says."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_GREY = "#666666"
_BARS = 20
_PANELS = 4
_GRID = 801
_LINEAR = 15


def plot_bias(comparison: Comparison, ax: Axes | None = None) -> Figure:
    """Bias of each component with its 95% band.

    Each component has its own unit, so that all can share an axis: the largest standard error of
    the mean that any of the estimators has there. Without a reference the differences are against the
    estimator of the least variance, paired under common seeds. Beyond 15 units the axis is
    logarithmic (symlog).
    """
    chosen = widest(comparison, _BARS)
    bias, error, against = _bias(comparison, chosen)
    errors = np.array(list(error.values()))
    unit = errors.max(0)
    spread = np.abs(np.array(list(bias.values()))).max(0)
    unit = np.where(unit > 0, unit, np.where(spread > 0, spread, 1))
    labels, count = list(bias), len(chosen)
    height = 1.9 + count * max(0.34, 0.13 * len(labels) + 0.1)
    own = ax
    figure, ax = _axes(ax, (7.6, min(height, 14)))
    rows = np.arange(count)
    offsets = np.linspace(-0.32, 0.32, len(labels)) if len(labels) > 1 else np.zeros(1)
    for place, label in enumerate(labels):
        ax.errorbar(
            bias[label] / unit,
            rows + offsets[place],
            xerr=Z95 * error[label] / unit,
            fmt=_marker(place),
            color=_colour(place),
            markersize=4,
            elinewidth=1.4,
            capsize=0,
            label=label,
        )
    for row in rows[1::2]:
        ax.axhspan(row - 0.5, row + 0.5, color="#f3f3f3", zorder=-2, linewidth=0)
    ax.axvline(0, color=_GREY, linewidth=1, linestyle="--", zorder=0, label=against)
    _symmetric(ax, max(np.abs(bias[label] / unit).max() + Z95 * (error[label] / unit).max() for label in labels))
    ax.set_ylim(count - 0.5, -0.5)
    ax.set_yticks(rows, [wrapped(comparison.components[component], 28) for component in chosen])
    ax.tick_params(axis="y", length=0)
    what = "bias" if comparison.reference is not None else "difference"
    ax.set_xlabel(f"{what}, in units of the component's largest standard error of the mean")
    note = "Bars: 95% bands; one in twenty misses the line by chance" + _some(comparison, chosen, "of largest variance")
    _title(figure, own, comparison, f"{what.capitalize()} of the mean of {comparison.replicates:,} gradients", note)
    _legend(figure, ax)
    return figure


def plot_distributions(comparison: Comparison, components: list[str] | None = None) -> Figure:
    """Density of single gradients: a panel for each component, a row for each estimator.

    Densities are Gaussian kernel estimates (Silverman's bandwidth), scaled to one height, over the
    range that holds the central 99% of each estimator. A tick marks the mean.

    Args:
        comparison: what to draw.
        components: labels as in ``comparison.components``; None takes four whose gradients are
            largest against their noise.

    Raises:
        ValueError: a label that is not there.
    """
    chosen = _told_apart(comparison) if components is None else _places(comparison, components)
    labels = list(comparison.estimators)
    columns = min(len(chosen), 2)
    lines = -(-len(chosen) // columns)
    figure = _figure((7.6 if columns > 1 else 5.6, 0.9 + lines * (0.75 + 0.42 * len(labels))))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    known = comparison.flat_reference()
    draws = {label: comparison.flat(label)[:, chosen].astype(float) for label in labels}
    for panel, component in enumerate(chosen):
        ax = grid.flat[panel]
        low, high = _common_range([draws[label][:, panel] for label in labels])
        if known is not None:
            low, high = min(low, known[0][component]), max(high, known[0][component])
        pad = 0.04 * (high - low)
        points = np.linspace(low - pad, high + pad, _GRID)
        for place, label in enumerate(labels):
            values = draws[label][:, panel]
            density = _density(values, points)
            ax.fill_between(points, place, place - 0.82 * density, color=_colour(place), alpha=0.55, linewidth=0)
            ax.plot(points, place - 0.82 * density, color=_colour(place), linewidth=1)
            ax.plot(2 * [values.mean()], [place, place + 0.14], color=_colour(place), linewidth=2)
        if known is not None:
            name = f"reference ({comparison.reference_kind})"
            ax.axvline(known[0][component], color=_GREY, linewidth=1, linestyle="--", label=name)
        ax.set_title(wrapped(comparison.components[component], 40), fontsize=9, loc="left")
        ax.set_xlim(points[0], points[-1])
        ax.set_ylim(len(labels) - 0.75, -1)
        ax.set_yticks(range(len(labels)), [wrapped(label, 24) for label in labels])
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=6)
        ax.grid(False, axis="y")
    for ax in grid.flat[max(0, len(chosen) - columns) : len(chosen)]:
        ax.set_xlabel("single gradient [objective / parameter]", fontsize=9)
    for ax in grid.flat[len(chosen) :]:
        ax.remove()
    which = "largest against their noise" if components is None else "as asked for"
    note = "Ticks: means; range: the central 99%" + _some(comparison, chosen, which)
    _title(figure, None, comparison, f"Distribution of {comparison.replicates:,} single gradients", note)
    _legend(figure, grid.flat[0])
    return figure


def plot_variance_cost(comparison: Comparison, ax: Axes | None = None, cost: str = "seconds") -> Figure:
    """Total variance against the cost of one gradient, both logarithmic, with 95% bars.

    Along a dotted line variance × cost is one number: moving along it, by averaging more or fewer
    gradients, gains nothing. An estimator without variance is drawn as a triangle on the lower edge.

    Raises:
        ValueError: ``cost`` is neither ``"seconds"`` nor ``"evaluations"``.
    """
    if cost not in ("seconds", "evaluations"):
        raise ValueError(f"cost='{cost}' is unknown. Write 'seconds' or 'evaluations'.")
    from matplotlib.ticker import NullLocator

    table = totals(comparison)
    times = np.maximum(
        table["seconds_per_step" if cost == "seconds" else cost].to_numpy(float) * (1e3 if cost == "seconds" else 1),
        1e-12,
    )
    variance, mcse = table["variance"].to_numpy(), table["variance_mcse"].to_numpy()
    positive = variance[variance > 0]
    floor = positive.min() / 30 if len(positive) else 1.0
    heights = np.where(variance > 0, variance, floor)
    own = ax
    figure, ax = _axes(ax, (6.6, 4.6))
    ax.set_xscale("log")
    ax.set_yscale("log")
    factors = np.where(variance > 0, np.exp(Z95 * mcse / heights), 1)  # a band that cannot reach below zero
    _log_limits(ax, times, np.concatenate([heights / factors, heights * factors]))
    for place, factor in enumerate(factors):
        ax.errorbar(
            times[place],
            heights[place],
            yerr=[[heights[place] * (1 - 1 / factor)], [heights[place] * (factor - 1)]],
            fmt=_marker(place) if variance[place] > 0 else "v",
            color=_colour(place),
            markersize=6.5,
            capsize=5,
        )
    if not len(positive):
        ax.yaxis.set_major_locator(NullLocator())
        ax.yaxis.set_minor_locator(NullLocator())
    _equal_work(ax, (times * heights)[variance > 0])
    names = [
        _remark(str(label), row["biased"], "" if row["variance"] > 0 else "variance 0")
        for label, row in table.iterrows()
    ]
    unit = "wall time for one gradient, alone [ms]" if cost == "seconds" else "program executions for one gradient"
    ax.set_xlabel(unit)
    ax.set_ylabel("total variance of one gradient\n[(objective / parameter)²]")
    note = f"Dotted: equal variance × {'time' if cost == 'seconds' else 'executions'}; bars: 95% bands"
    _title(figure, own, comparison, "Variance of one gradient against its cost", note)
    place_labels(figure, ax, times, heights, names)
    return figure


def _bias(comparison: Comparison, chosen: Places) -> tuple[dict[str, Array], dict[str, Array], str]:
    """Bias and its standard error, by estimator, and what it is against."""
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


def _remark(label: str, *remarks: str) -> str:
    said = ", ".join(remark for remark in remarks if remark)
    return f"{label} ({said})" if said else label


def _told_apart(comparison: Comparison) -> Places:
    """A few components whose mean is largest against the noise of the noisiest estimator."""
    found = comparison.statistics.values()
    size = np.max([np.abs(one.mean) for one in found], axis=0)
    noise = np.sqrt(np.max([one.variance for one in found], axis=0))
    score = np.where(noise > 0, size / np.where(noise > 0, noise, 1), -1.0)
    return np.sort(np.argsort(-score, kind="stable")[:_PANELS])


def _places(comparison: Comparison, components: list[str]) -> Places:
    unknown = [name for name in components if name not in comparison.components]
    if unknown or not components:
        some = ", ".join(comparison.components[:5])
        raise ValueError(f"No component is called {unknown}. Choose from {some}, … (comparison.components).")
    return np.array([comparison.components.index(name) for name in components])


def _common_range(samples: list[Array]) -> tuple[float, float]:
    ends = np.array([np.quantile(sample, (0.005, 0.995)) for sample in samples])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if high > low:
        return low, high
    half = abs(low) or 1.0
    return low - half / 2, high + half / 2


def _density(values: Array, points: Array) -> Array:
    """Kernel density on an even grid, from binned values, scaled to a largest value of 1."""
    step = points[1] - points[0]
    quarter, three = np.quantile(values, (0.25, 0.75))
    scale = min(values.std(), (three - quarter) / 1.349) or values.std()
    width = max(0.9 * scale * len(values) ** -0.2, 1.5 * step)
    reach = min(int(np.ceil(4 * width / step)), len(points) - 1)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * step / width))
    edges = np.append(points - step / 2, points[-1] + step / 2)
    density = np.convolve(np.histogram(values, edges)[0], kernel)[reach : reach + len(points)]
    return density / density.max() if density.max() > 0 else density


def _equal_work(ax: Axes, products: Array) -> None:
    """Dotted lines on which variance × cost is one of these numbers."""
    ends = np.array(ax.get_xlim())
    for product in products:
        ax.plot(
            ends, product / ends, color="#999999", linewidth=0.9, linestyle=":", zorder=-1, scalex=False, scaley=False
        )


def _log_limits(ax: Axes, times: Array, heights: Array) -> None:
    """Room around the points on both axes, and ticks at 1, 2, 5 where there are few powers of ten."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    for values, axis, set_limits in ((times, ax.xaxis, ax.set_xlim), (heights, ax.yaxis, ax.set_ylim)):
        middle = (np.log10(values.min()) + np.log10(values.max())) / 2
        half = max((np.log10(values.max()) - np.log10(values.min())) / 2 * 1.35, 0.6)
        set_limits(10 ** (middle - half), 10 ** (middle + half))
        axis.set_minor_formatter(NullFormatter())
        if half < 1.5:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}" if 1e-4 < values.min() <= values.max() < 1e5 else LogFormatterSciNotation())


def _symmetric(ax: Axes, largest: float) -> None:
    """Limits around 0; logarithmic beyond 5 units if something lies far out."""
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


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Any, Axes]:
    if ax is None:
        ax = _figure(size).subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return ax.figure, ax


def _title(figure: Any, ax: Axes | None, comparison: Comparison, what: str, note: str) -> None:
    """A heading over a figure of our own, or over the axes that we were given."""
    lines = int((figure.get_size_inches()[0] if ax is None else 6) * 12.5)
    text = "\n".join(wrapped(part, lines) for part in (comparison.name, what, note) if part)
    if ax is None:
        figure.suptitle(text, x=0.012, horizontalalignment="left", fontsize=9.5, linespacing=1.35)
    else:
        ax.set_title(text, fontsize=9.5, loc="left")


def _some(comparison: Comparison, chosen: Places, which: str) -> str:
    everything = len(comparison.components)
    return "" if len(chosen) == everything else f"; {len(chosen)} of {everything:,} components, {which}"


def _legend(figure: Figure, ax: Axes) -> None:
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


def _colour(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]
