"""Draws and signals: all that an estimator sees of a program."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppgrad.core.generators import draws_up_front


class Plate(NamedTuple):
    """One vectorized plate: its name, its dimension counted from the right, its size."""

    name: str
    dim: int
    size: int


Plates = frozenset[Plate]
"""The vectorized plates around a site."""


@dataclass(frozen=True, eq=False)
class Draw:
    """One random site over all lanes of a run.

    Every tensor begins with two lane dimensions ``(particles, branches)``. ``log_prob`` goes on
    with the plate dimensions, padded on the left with ones to the depth of the deepest plate of
    the program, so that terms of different sites add up by broadcasting.

    Args:
        name: the site.
        value: the value drawn, lanes + padded plates + event shape.
        log_prob: log density of how the value was drawn: neither scaled nor masked.
        plates: the vectorized plates around the site.
        event_dim: how many dimensions one event has.
        context: what a learned baseline may look at; tensors with the lane dimensions in front.
        extras: further tensors that the estimator's ``sample`` handed out: lanes, padded plates,
            and whatever they have to the right of the batch shape.
        discount: by what the objective multiplies a reward that is earned next.
        active: the mask of ``infer["active"]``, elsewhere than which the score is 0; None for everywhere.
    """

    name: str
    value: Tensor
    log_prob: Tensor
    plates: Plates
    event_dim: int = 0
    context: Any = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    discount: float = 1.0
    active: Tensor | None = None


class Chain:
    """The draws of one execution that one estimator or one baseline serves, in program order, with their signals.

    ``cache`` holds what was computed for all of them at once.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[Draw, Signal]] = []
        self.cache: dict[Any, Any] = {}

    def append(self, draw: Draw, signal: Signal) -> None:
        """Add the next draw, and tell its signal its place."""
        signal.chain, signal.place = self, len(self.steps)
        self.steps.append((draw, signal))


class Regressed(NamedTuple):
    """What a critic was to predict at one draw, and by how much it missed; never differentiated."""

    target: Tensor
    error: Tensor


class Signal:
    """The cost downstream of one draw, never differentiated.

    Args:
        parts: cost sums by the plates that they lie in, each of shape lanes + padded plates.
        plates: the plates of the draw; what lies in other plates is summed over them.
        alternatives: the downstream cost in the branch of each alternative, ``(n, *lanes, *padded
            plates)``; for an estimator that goes element by element followed by the event's shape,
            with the cost of replacing just that element.
        base: the downstream cost of the value drawn, in the plates of the alternatives; ``value`` may keep more
            slices apart.
        relaxed: for an estimator whose needs say ``relaxed``, the whole downstream cost of each alternative's
            branch, with its graph and every cost counted once: ``(n, *lanes)``.
        gradients: for an estimator whose needs say ``slopes``, the gradient of the downstream cost with
            respect to the value in the branch of each alternative.
        others: where lanes share a cost, the mean cost of the lanes that do not share this one's.
        without: where lanes share a cost, what it is expected to be without this lane.
        like: has the dtype and the device of the costs; needed where there may be none.

    ``cache`` holds what was predicted of it, so that no network runs twice, and ``regressed`` what a critic
    learned from.
    """

    def __init__(
        self,
        parts: Mapping[Plates, Tensor],
        plates: Plates,
        alternatives: Tensor | None = None,
        base: Tensor | None = None,
        relaxed: Tensor | None = None,
        gradients: Tensor | None = None,
        others: Tensor | None = None,
        without: Tensor | None = None,
        like: Tensor | None = None,
    ):
        self._parts = parts
        self._plates = plates
        self._alternatives = alternatives
        self._base = base
        self._relaxed = relaxed
        self._gradients = gradients
        self.others = others
        self.without = without
        self._like = next(iter(parts.values()), like)
        self.chain = Chain()
        self.place = 0
        self.cache: dict[Any, Tensor] = {}
        self.regressed: Regressed | None = None

    @property
    def alternatives(self) -> Tensor:
        """The downstream cost in each alternative's branch, never differentiated."""
        return _given(self._alternatives)

    @property
    def has_alternatives(self) -> bool:
        """Whether the program was run again for this draw."""
        return self._alternatives is not None

    @property
    def has_relaxed(self) -> bool:
        """Whether those runs carry their gradient."""
        return self._relaxed is not None

    @property
    def relaxed(self) -> Tensor:
        """The whole downstream cost of each alternative's branch, with its graph."""
        return _given(self._relaxed)

    @property
    def has_gradients(self) -> bool:
        """Whether those runs were differentiated."""
        return self._gradients is not None

    @property
    def gradients(self) -> Tensor:
        """The gradient of the downstream cost with respect to the value, at each alternative.

        Shape ``(n, *lanes, *padded plates, *event)``.
        """
        return _given(self._gradients)

    def lies_in(self, lanes: Sequence[int]) -> bool:
        """Whether all of it has one number for each of ``lanes``."""
        shared = (self.others, self.without)
        return all(x.shape[:2] == lanes for x in (*self._parts.values(), *(x for x in shared if x is not None)))

    @property
    def base(self) -> Tensor:
        """The downstream cost of the value drawn, over the same costs as `alternatives`."""
        return _given(self._base)

    @classmethod
    def joined(cls, signals: Sequence[Signal], dim: int = 0) -> Signal:
        """Signals put together along a lane dimension.

        Along the first: those of one site in groups of lanes; along the second: those of many sites.
        """
        parts: dict[Plates, Tensor] = {}
        for plates in {plates for signal in signals for plates in signal._parts}:
            like = next(signal._parts[plates] for signal in signals if plates in signal._parts)
            zero = torch.zeros_like(like)
            parts[plates] = torch.cat([signal._parts.get(plates, zero) for signal in signals], dim)

        def together(tensors: list[Tensor | None], dim: int) -> Tensor | None:
            given = [tensor for tensor in tensors if tensor is not None]
            return torch.cat(given, dim) if given else None

        return cls(
            parts,
            signals[0]._plates,
            together([signal._alternatives for signal in signals], 1 + dim),
            together([signal._base for signal in signals], dim),
            together([signal._relaxed for signal in signals], 1 + dim),
            together([signal._gradients for signal in signals], 1 + dim),
            together([signal.others for signal in signals], dim),
            together([signal.without for signal in signals], dim),
            signals[0]._like,
        )

    @cached_property
    def value(self) -> Tensor:
        """All of the downstream cost, reduced to the draw's plates."""
        return self._reduce(self._parts).detach()

    def within(self, plate: str) -> Tensor:
        """The part that lies inside ``plate``: the slices of the others do not depend on this draw."""
        inside = {plates: cost for plates, cost in self._parts.items() if any(p.name == plate for p in plates)}
        return self._reduce(inside).detach()

    def _reduce(self, parts: Mapping[Plates, Tensor]) -> Tensor:
        total: Tensor | None = None
        for plates, cost in parts.items():
            reduced = sum_plates(cost, plates - self._plates)
            total = reduced if total is None else total + reduced
        if total is not None:
            return total
        return torch.zeros(1, 1) if self._like is None else self._like.new_zeros(1, 1)


def _given(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise TypeError("the estimator has not asked for this: write it into its needs, see Needs")
    return tensor


def sum_lane(tensor: Tensor) -> Tensor:
    """Sum all that belongs to one lane: shape lanes."""
    return tensor.reshape(*tensor.shape[:2], -1).sum(-1)


def sum_plates(cost: Tensor, plates: Plates) -> Tensor:
    """Sum ``cost`` over the dimensions of ``plates``, which stay as dimensions of size one."""
    dims = [plate.dim for plate in plates if cost.shape[plate.dim] != 1]
    return cost.sum(dims, keepdim=True) if dims else cost


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of all elements of all terms, one sum for all terms of one shape.

    A compiler fuses additions and cannot fuse a stack.
    """
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for term in terms:
        by_shape.setdefault(term.shape, []).append(term)
    result = torch.zeros(())
    for alike in by_shape.values():
        apart = draws_up_front() or len(alike) == 1
        result = result + (functools.reduce(torch.add, alike) if apart else torch.stack(alike)).sum()
    return result
