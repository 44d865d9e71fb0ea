"""Where the cost of a program jumps between the values of a discrete site: no slope tells of that."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppgrad.core import PpgradError, Unsupported
from ppgrad.core.distributions import unvalidated
from ppgrad.core.relaxation import as_value, category_logits
from ppgrad.engine.execute import Executor
from ppgrad.engine.record import Drawn, Sampler, Site, run, sites_of
from ppgrad.engine.stopped import Traces, values_drawn

PIECES = 8
"""Into how many pieces each line is cut at first."""

SPLITS = 48
"""How many times a piece of a line is halved at most."""

NARROW = 1e-5
"""How narrow a piece is, as a share of its line, before a gap that is still there counts as a jump."""

MARGIN = 1e-3
"""How far from the values themselves a line ends: a relaxed value never reaches them."""

Point = tuple[float, float, float]
"""A place on a line, the cost there, and its slope along the line."""


def check_continuous(executor: Executor, name: str, sampler: Sampler, traces: Traces, lines: int) -> None:
    """Raise if the cost jumps on a line between values of a site, everything else held as it was drawn.

    On a piece of the line the cost differs by its slope's integral, unless it jumps there. The piece with
    the largest gap between the two is halved, again and again: a gap that stays is a jump.

    Args:
        executor: runs the program.
        name: the site.
        sampler, traces: of one run.
        lines: how many lines to walk.

    Raises:
        Unsupported: the cost jumps.
    """
    values = {drawn: value.detach() for drawn, value in values_drawn(traces, sampler).items()}
    site = next(site for site in sites_of(*traces, sampler) if site.name == name)
    for start, end in _lines(site, lines):
        try:
            jumps = _jumps(partial(_point, executor, site, values, start, end))
        except PpgradError:
            raise
        except Exception:
            return  # a density that cannot be had at a value of its own: nothing to be said of this program
        if jumps:
            estimator = type(site.estimator).__name__
            raise Unsupported(
                f"{estimator} at site '{name}' runs the program with a relaxed value, and its cost jumps between the "
                "site's values: the program rounds it, or compares it with a threshold.\nChoose an estimator "
                f"that keeps values discrete: sites={{'{name}': LocalExpectation()}}."
            )


def _lines(site: Site, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Ends of lines: from the first category of each element to its last, then between random ones."""
    logits = category_logits(site.fn).detach()
    size = logits.shape[-1]
    first = torch.zeros(logits.shape[:-1], dtype=torch.long)
    ends = [(first, first + size - 1)]
    for _ in range(count - 1):
        random = torch.randint(size, first.shape)
        ends.append((random, (random + torch.randint(1, max(size, 2), first.shape)) % size))
    for pair in ends:
        start, end = (torch.nn.functional.one_hot(index, size).to(logits.dtype) for index in pair)
        inside = [(1 - MARGIN) * weights + MARGIN / size for weights in (start, end)]
        yield as_value(site.fn, inside[0]), as_value(site.fn, inside[1])


def _jumps(point: Callable[[float], tuple[Point, float]]) -> bool:
    """Whether a function jumps on [0, 1]: ``point`` gives its value and slope, and how far rounding may reach."""
    points, reaches = zip(*(point(i / PIECES) for i in range(PIECES + 1)), strict=True)
    costs = [cost for _, cost, _ in points]
    tolerance = max(*reaches, 1e-3 * (max(costs) - min(costs)))
    pieces = [_Piece(a, b, ()) for a, b in itertools.pairwise(points)]
    for _ in range(SPLITS):
        piece = max(pieces, key=lambda p: p.gap)
        if piece.gap <= tolerance:
            return False
        pieces.remove(piece)
        if piece.width < NARROW:
            if piece.keeps_its_gap:
                return True
            continue
        middle, _ = point((piece.start[0] + piece.end[0]) / 2)
        before = (*piece.before, piece.gap)[-3:]
        pieces += [_Piece(piece.start, middle, before), _Piece(middle, piece.end, before)]
    return False


@dataclass(frozen=True)
class _Piece:
    """A part of a line, and the gaps of the last three pieces that it was cut from."""

    start: Point
    end: Point
    before: tuple[float, ...]

    @property
    def width(self) -> float:
        return self.end[0] - self.start[0]

    @cached_property
    def gap(self) -> float:
        """How far the cost's difference is from the integral of its slope, by the trapezoidal rule."""
        return abs(self.end[1] - self.start[1] - self.width * (self.start[2] + self.end[2]) / 2)

    @property
    def keeps_its_gap(self) -> bool:
        """At a kink one of the last three gaps was at least 1.4 times as large; at a jump all are alike."""
        return self.gap > 0.7 * max(self.before)


def _point(
    executor: Executor, site: Site, values: Mapping[str, Tensor], start: Tensor, end: Tensor, share: float
) -> tuple[Point, float]:
    value = (start + share * (end - start)).requires_grad_()
    held = _Held({**values, site.name: value}, site)
    with pyro.validation_enabled(False):
        sites = sites_of(*run(executor.program, held), held)
        costs = executor.costs(sites)
        place = next(i for i, other in enumerate(sites) if other.name == site.name)
        terms = [cost for cost in costs[place:] if cost is not None]
        # A later draw's density is not a cost, but its score passes the cost's slope on.
        terms += [other.density for other in sites[place + 1 :] if other.is_random]
    # With weights of their own, so that jumps of two terms do not cancel.
    total = torch.stack([(1 + 0.1 * i / len(terms)) * term.sum() for i, term in enumerate(terms)]).sum()
    slope = None
    if total.requires_grad:
        (slope,) = torch.autograd.grad(total, [value], allow_unused=True)
    along = 0.0 if slope is None else float((slope * (end - start)).sum())
    size = float(torch.stack([term.detach().abs().sum() for term in terms]).sum())
    return (share, float(total.detach()), along), 64 * torch.finfo(total.dtype).eps * size


class _Held(Sampler):
    """Gives each random site the value that it had, and one site a relaxed one."""

    def __init__(self, values: Mapping[str, Tensor], relaxed: Site):
        Messenger.__init__(self)
        self._values = values
        self._relaxed = relaxed
        self.drawn: dict[str, Drawn] = {}

    def _pyro_sample(self, message: Any) -> None:
        name = message["name"]
        if name == self._relaxed.name:
            message["fn"] = unvalidated(message["fn"])
        if message["done"] or message["is_observed"] or name not in self._values:
            return
        estimator = self._relaxed.estimator if name == self._relaxed.name else None
        self.drawn[name] = Drawn(estimator, {}, is_changed=True, in_branch=True)
        message["value"] = self._values[name]
        message["done"] = True
