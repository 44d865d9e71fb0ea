"""Text in pictures that does not lie on other text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ppgrad.analysis.statistics import Array

_RINGS = (9, 22, 38, 58, 82, 110, 140)
_DIRECTIONS = ((1, 0), (-1, 0), (0.7, 1), (0.7, -1), (-0.7, 1), (-0.7, -1), (0, 1.2), (0, -1.2))


def wrapped(text: str, width: int) -> str:
    """Text in lines of at most ``width`` characters, three lines at most; dollars are no mathematics."""
    lines = textwrap.wrap(text, width, break_long_words=True, max_lines=3, placeholder=" …")
    return "\n".join(lines).replace("$", r"\$")


def place_labels(figure: Any, ax: Axes, x: Array, y: Array, names: list[str]) -> None:
    """Name points: each label goes to the nearest free place around its point, with a line if it is far.

    Free means on no marker, no other label, and inside the axes. A label for which there is no such
    place goes where it covers the least.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    root = figure.get_figure(root=True) if hasattr(figure, "get_figure") else figure
    root = root if root is not None else figure
    if root.canvas is None or not hasattr(root.canvas, "get_renderer"):
        FigureCanvasAgg(root)
    root.draw_without_rendering()  # the layout settles
    renderer = root.canvas.get_renderer()
    points = ax.transData.transform(np.column_stack([x, y]))
    pixels = root.dpi / 72
    taken = [_box(point, 14 * pixels, 14 * pixels) for point in points]
    frame = np.asarray(ax.get_window_extent(renderer).extents)
    for place, name in enumerate(names):
        note = ax.annotate(wrapped(name, 36), (x[place], y[place]), fontsize=8, annotation_clip=False)
        note.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})
        size = note.get_window_extent(renderer)
        best = None
        for ring in _RINGS:
            for direction in _DIRECTIONS:
                centre = points[place] + _offset(ring * pixels, direction, size.width, size.height)
                box = _box(centre, size.width + 4 * pixels, size.height + 2 * pixels)
                badness = sum(_overlap(box, other) for other in taken) + _outside(box, frame)
                if best is None or badness < best[0]:
                    best = (badness, centre, box, ring)
            if best is not None and best[0] == 0:
                break
        assert best is not None
        _, centre, box, ring = best
        taken.append(box)
        note.xyann = tuple((centre - points[place]) / pixels)
        note.anncoords = "offset points"
        note.set_horizontalalignment("center")
        note.set_verticalalignment("center")
        if ring > _RINGS[0]:
            _leader(ax, (x[place], y[place]), tuple((centre - points[place]) / pixels))


def _leader(ax: Axes, point: tuple[float, float], offset: tuple[float, float]) -> None:
    style = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.7, "shrinkB": 5}
    ax.annotate("", point, xytext=offset, textcoords="offset points", arrowprops=style, zorder=1)


def _offset(ring: float, direction: tuple[float, float], width: float, height: float) -> Array:
    across, up = direction
    return np.array([across * ring + np.sign(across) * width / 2, up * ring + np.sign(up) * height / 2 * (across == 0)])


def _box(centre: Array, width: float, height: float) -> Array:
    return np.array([centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2])


def _overlap(one: Array, other: Array) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return float(max(width, 0) * max(height, 0))


def _outside(box: Array, frame: Array) -> float:
    over = np.maximum(frame[:2] - box[:2], 0).sum() + np.maximum(box[2:] - frame[2:], 0).sum()
    return float(over * 20)
