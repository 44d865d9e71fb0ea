"""Factors that share variables become one, their variables summed out."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import LogRing
from torch import Tensor

from ppgrad.engine.elimination.log_einsum import lowest

Symbols = frozenset[str]
"""Names of dimensions, as in ``pyro.ops.packed``: those of plates, and those of variables."""


class Factor(NamedTuple):
    """A log density, packed as by ``pyro.ops.packed.pack``, and the plates around it."""

    density: Tensor
    plates: Symbols

    @property
    def dims(self) -> Symbols:
        return frozenset(self.density._pyro_dims)  # type: ignore[attr-defined]


class Eliminated(NamedTuple):
    """What is left of some factors: their indices, the plates in which slices are apart, and the packed result."""

    factors: tuple[int, ...]
    plates: Symbols
    density: Tensor


class _Ring(LogRing):
    """Pyro's ring of logarithms, with a backend of opt_einsum (a module, by name) that runs under vmap."""

    _backend = f"{__name__.rpartition('.')[0]}.log_einsum"


def connected(factors: Sequence[Factor], variables: Symbols) -> list[tuple[int, ...]]:
    """The indices of factors in groups that share no variable, in the order of their first."""
    groups: dict[int, list[int]] = {}
    held: dict[int, set[str]] = {}
    owner: dict[str, int] = {}
    for place, factor in enumerate(factors):
        own = factor.dims & variables
        met = sorted({owner[dim] for dim in own if dim in owner})
        first = met[0] if met else place
        for other in met[1:]:
            groups[first] += groups.pop(other)
            held[first] |= held.pop(other)
        groups.setdefault(first, []).append(place)
        held.setdefault(first, set()).update(own)
        owner.update(dict.fromkeys(held[first] if len(met) > 1 else own, first))
    return sorted(tuple(sorted(places)) for places in groups.values())


def eliminate(factors: Sequence[Factor], places: tuple[int, ...], variables: Symbols) -> Eliminated:
    """log Σ exp of the sum of connected ``factors`` over all ``variables``, in the plates that all of them share.

    A variable inside of a plate is summed in each slice, and slices are multiplied where a variable outside of the
    plate has a factor in it: log Σ_z p(z) Π_n Σ_k p(k_n | z) p(x_n | k_n).

    Args:
        factors: all of them.
        places: the indices of those that are connected.
        variables: the dimensions to sum out.

    Raises:
        NotImplementedError: a factor stands in two plates, neither inside of the other, that both have variables.

    Source: Obermeyer, Bingham, Jankowiak, Chiu, Pradhan, Rush & Goodman (2019), Tensor variable elimination for plated
    factor graphs, algorithm 1.
    """
    tree: OrderedDict[Symbols, list[Any]] = OrderedDict()
    for place in places:
        tree.setdefault(factors[place].plates, []).append(factors[place].density)
    ((plates, (density,)),) = contract_tensor_tree(tree, set(variables), ring=_Ring()).items()
    dims = density._pyro_dims
    # The backend has the lowest number in place of −∞, whose gradient would be NaN.
    density = torch.where(density > lowest(density.dtype) / 2, density, -math.inf)
    density._pyro_dims = dims  # type: ignore[attr-defined]
    return Eliminated(places, plates, density)
