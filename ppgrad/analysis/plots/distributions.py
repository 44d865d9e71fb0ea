"""The distribution of single gradients, a panel for each of a few components."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppgrad.analysis.comparison_data import ComparisonData
from ppgrad.analysis.plots.figures import GREY, add_legend, add_title, colour, new_figure, shown_of
from ppgrad.analysis.plots.labels import wrapped
from ppgrad.analysis.statistics import Array
from ppgrad.analysis.tables import Places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 4
_GRID = 801


def plot_distributions(comparison: ComparisonData, components: list[str] | None = None) -> Figure:
    """Density of single gradients: a panel for each component, a row for each estimator.

    Densities are Gaussian kernel estimates (Silverman's bandwidth), scaled to one height, over the
    range that holds the central 99% of each estimator. A tick marks the mean. The horizontal axis is
    in units of objective / parameter.

    Args:
        comparison: what to draw.
        components: labels as in ``comparison.components``; None takes four whose gradients are
            largest against their noise.

    Raises:
        ValueError: a label that is not there, or no choice of components and only one replicate, which has no noise.

    Source: Silverman (1986), eq. 3.31, for the bandwidth.
    """
    chosen = _told_apart(comparison) if components is None else _places(comparison, components)
    labels = list(comparison.estimators)
    columns = min(len(chosen), 2)
    lines = -(-len(chosen) // columns)
    figure = new_figure((7.6 if columns > 1 else 5.6, 0.9 + lines * (0.75 + 0.42 * len(labels))))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    known = comparison.flat_reference()
    draws = [comparison.flat(label)[:, chosen].astype(float) for label in labels]
    for panel, component in enumerate(chosen):
        ax = grid.flat[panel]
        reference = None if known is None else known[0][component]
        _draw_densities(ax, [values[:, panel] for values in draws], reference, comparison.reference_kind)
        ax.set_title(wrapped(comparison.components[component], 40), fontsize=9, loc="left")
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
    note = "Ticks: means; range: the central 99%" + shown_of(len(chosen), len(comparison.components), which)
    add_title(figure, None, comparison.name, f"Distribution of {comparison.replicates:,} single gradients", note)
    add_legend(figure, grid.flat[0])
    return figure


def density(values: Array, points: Array) -> Array:
    """Kernel density on an even grid, from binned values, scaled to a largest value of 1.

    Args:
        values: a sample, shape (n,).
        points: where the density is wanted, increasing in equal steps, shape (m,).

    Returns:
        Shape (m,); 0 everywhere if no value lies near the grid.

    Source: Silverman (1986), eq. 3.31, for the bandwidth 0.9 min(deviation, interquartile range / 1.34) n^(−1/5);
    here 1.349, which is a normal distribution's own ratio, and a bandwidth of one and a half steps at least.
    """
    step = points[1] - points[0]
    quarter, three = np.quantile(values, (0.25, 0.75))
    scale = min(values.std(), (three - quarter) / 1.349) or values.std()
    width = max(0.9 * scale * len(values) ** -0.2, 1.5 * step)
    reach = min(int(np.ceil(4 * width / step)), len(points) - 1)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * step / width))
    edges = np.append(points - step / 2, points[-1] + step / 2)
    found = np.convolve(np.histogram(values, edges)[0], kernel)[reach : reach + len(points)]
    return found / found.max() if found.max() > 0 else found


def _draw_densities(ax: Axes, samples: list[Array], reference: float | None, reference_kind: str) -> None:
    """Draw one component: a density and a mean for each estimator's sample of shape (replicates,)."""
    low, high = _common_range(samples)
    if reference is not None:
        low, high = min(low, reference), max(high, reference)
    pad = 0.04 * (high - low)
    points = np.linspace(low - pad, high + pad, _GRID)
    for place, values in enumerate(samples):
        height = 0.82 * density(values, points)
        ax.fill_between(points, place, place - height, color=colour(place), alpha=0.55, linewidth=0)
        ax.plot(points, place - height, color=colour(place), linewidth=1)
        ax.plot(2 * [values.mean()], [place, place + 0.14], color=colour(place), linewidth=2)
    if reference is not None:
        ax.axvline(reference, color=GREY, linewidth=1, linestyle="--", label=f"reference ({reference_kind})")
    ax.set_xlim(points[0], points[-1])


def _told_apart(comparison: ComparisonData) -> Places:
    """A few components whose mean is largest against the noise of the noisiest estimator."""
    found = comparison.statistics.values()
    size = np.max([np.abs(one.mean) for one in found], axis=0)
    noise = np.sqrt(np.max([one.variance for one in found], axis=0))
    score = np.where(noise > 0, size / np.where(noise > 0, noise, 1), -1.0)
    return np.sort(np.argsort(-score, kind="stable")[:_PANELS])


def _places(comparison: ComparisonData, components: list[str]) -> Places:
    unknown = [name for name in components if name not in comparison.components]
    if unknown or not components:
        some = ", ".join(comparison.components[:5])
        raise ValueError(f"No component is called {unknown}. Choose from {some}, … (comparison.components).")
    return np.array([comparison.components.index(name) for name in components])


def _common_range(samples: list[Array]) -> tuple[float, float]:
    """The range that holds the central 99% of every sample, and is nowhere empty."""
    ends = np.array([np.quantile(sample, (0.005, 0.995)) for sample in samples])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if high > low:
        return low, high
    half = abs(low) or 1.0
    return low - half / 2, high + half / 2
