"""The table as a picture: a line for each program and way, a mark for each rival."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.report import Row

STYLES = {
    "torch by hand": ("o", "#000000"),
    "torch by hand, stacked": ("o", "#999999"),
    "Pyro Trace_ELBO": ("s", "#0072B2"),
    "Pyro TraceGraph_ELBO": ("^", "#0072B2"),
    "Pyro TraceEnum_ELBO": ("v", "#56B4E9"),
    "Storchastic 0.3.7": ("D", "#009E73"),
    "Storchastic 0.3.7, biased": ("d", "#009E73"),
    "JAX scan + jit": ("P", "#D55E00"),
    "NumPyro SVI.update + jit": ("X", "#E69F00"),
}
"""Marker and color of each rival, of a palette that color-blind people can tell apart."""

OTHER = ("o", "#CC79A7")
PANELS = {False: "Against rivals", True: "Against itself"}


def save(path: Path, rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    """Draw every row that has a ratio; a bar in the rival's color is the target."""
    panels = {itself: [row for row in rows if row.itself == itself] for itself in PANELS}
    panels = {itself: found for itself, found in panels.items() if found}
    heights = [len(_lines(found)) + 2 for found in panels.values()]
    figure, axes = plt.subplots(
        len(panels),
        figsize=(10, 1.8 + 0.24 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for ax, (itself, found) in zip(axes[:, 0], panels.items(), strict=True):
        _panel(ax, PANELS[itself], found)
    about = f"{machine['processor']}, {machine['cores']} cores, one thread; torch {machine['torch']}"
    figure.suptitle(f"ppgrad's time in units of a rival's\n{about}", fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _lines(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.program, row.way) for row in rows))


def _panel(ax: Axes, title: str, rows: Sequence[Row]) -> None:
    lines = _lines(rows)
    ax.set_xscale("log")
    ax.axvline(1.0, color="black", linewidth=1, zorder=1)
    for i, row in enumerate(rows):
        height = lines.index((row.program, row.way))
        marker, color = STYLES.get(row.rival, OTHER)
        if math.isnan(row.ratio):
            continue
        ax.plot(row.ratio, height, marker, color=color, markersize=6.5, markeredgecolor="white", zorder=3 + i)
        if row.target is not None:
            ax.plot(row.target, height, "|", color=color, markersize=13, markeredgewidth=2, zorder=2)
    without = {line for line in lines if all(math.isnan(r.ratio) for r in rows if (r.program, r.way) == line)}
    ax.set_yticks(
        range(len(lines)),
        [f"{program}{'' if way == 'ppgrad' else f' · {way}'}" for program, way in lines],
        fontsize=8,
    )
    for i, line in enumerate(lines):
        if line in without:
            ax.text(0.995, i, "not run", transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=7)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.5), max(high, 2.0))
    ax.axvspan(1.0, ax.get_xlim()[1], color="#F4F4F4", zorder=0)
    if high / low < 1e4:
        ax.xaxis.set_major_locator(LogLocator(10, subs=(1, 3)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_title(title, fontsize=10, loc="left")
    ax.set_xlabel("← ppgrad is faster          ratio of median times          ppgrad is slower →", fontsize=8)
    names = [name for name in STYLES if any(row.rival == name for row in rows)]
    names += ["ppgrad itself, or a limit"] if any(row.rival not in STYLES for row in rows) else []
    handles = [_mark(*STYLES.get(name, OTHER), name) for name in names]
    handles.append(Line2D([], [], marker="|", color="#555555", linestyle="", markersize=11, label="target"))
    ax.legend(handles=handles, fontsize=7.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _mark(marker: str, color: str, label: str) -> Line2D:
    return Line2D(
        [], [], marker=marker, color=color, linestyle="", markersize=6.5, markeredgecolor="white", label=label
    )
