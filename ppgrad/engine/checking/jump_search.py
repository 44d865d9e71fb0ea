"""Whether a function on [0, 1] jumps, told from its values and its slopes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

PIECES = 8
"""Into how many pieces the line is cut at first."""

SPLITS = 48
"""How many times a piece is halved at most."""

SHARE = 1e-4
"""The smallest jump that counts, as a share of the function's range on the line."""


class Point(NamedTuple):
    """A place on the line, the function's value there, its slope, and how far rounding may reach."""

    place: float
    value: float
    slope: float
    rounding: float


def jumps(function: Callable[[Sequence[float]], list[Point]], narrow: float) -> bool:
    """Whether a function jumps: on a piece without a jump it differs by the integral of its slope.

    The piece with the largest gap between the two is halved, again and again. A gap that falls was
    curvature or a kink; one that stays until the piece is narrow is a jump.

    Args:
        function: gives the `Point` at each of some places.
        narrow: how short a piece is that halving need not go on with: what rises within less is a jump.
    """
    points = function([i / (2 * PIECES) for i in range(2 * PIECES + 1)])
    pieces = [_Piece(a, b, c, ()) for a, b, c in zip(points[::2], points[1::2], points[2::2], strict=False)]
    values = [point.value for point in points]
    tolerance = SHARE * (max(values) - min(values))
    if not math.isfinite(tolerance):
        return False
    for _ in range(SPLITS):
        piece = max(pieces, key=lambda each: each.gap, default=None)
        if piece is None or not piece.gap > tolerance:
            return False
        pieces.remove(piece)
        if piece.end.place - piece.start.place < narrow:
            if piece.keeps_its_gap:
                return True
            continue
        before = (*piece.before, piece.gap)[-3:]
        halves = list(itertools.pairwise((piece.start, piece.middle, piece.end)))
        middles = function([(start.place + end.place) / 2 for start, end in halves])
        pieces += [_Piece(start, middle, end, before) for (start, end), middle in zip(halves, middles, strict=True)]
    return False


@dataclass(frozen=True)
class _Piece:
    """A part of the line, and the gaps of the last three pieces that it was cut from."""

    start: Point
    middle: Point
    end: Point
    before: tuple[float, ...]

    @cached_property
    def gap(self) -> float:
        """How far the differences over its halves are from the integrals of a parabola, rounding left aside."""
        a, b, c = self.start.slope, self.middle.slope, self.end.slope
        share = (self.end.place - self.start.place) / 24
        left = self.middle.value - self.start.value - share * (5 * a + 8 * b - c)
        right = self.end.value - self.middle.value - share * (5 * c + 8 * b - a)
        return max(abs(left), abs(right)) - max(self.start.rounding, self.middle.rounding, self.end.rounding)

    @property
    def keeps_its_gap(self) -> bool:
        """Whether none of the last three gaps was larger: at a kink they halve, at a jump they are alike."""
        return self.gap > 0.9 * max(self.before)
