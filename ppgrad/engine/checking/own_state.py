"""Randomness and state of which torch's generators know nothing: every lane must run by itself."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from ppgrad.core.generators import set_random_state
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.site import Site

Ran = tuple[Sequence[Site], Sequence[Tensor | None]]
"""The sites of a run, and the cost of each."""

_GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)

_SOURCES = frozenset(("random", "numpy", "scipy", "secrets", "uuid", "os", "time"))
"""Modules with generators of their own, whose draws may agree by chance."""

_RERUNS = 8
"""How many runs must agree of a program that reads one of them."""

_ROUNDING = 16
"""Numbers that differ by less than this many times their precision count as the same."""


def own_state(program: Program, first: Ran, begin: Any, again: Callable[[], Ran]) -> str | None:
    """What differs between runs from one state of the generators, in words; None for nothing.

    A difference that a third run does not show is none: the first run may have made parameters.

    Args:
        program: that was run.
        first: one run of it.
        begin: the state of the generators when it began.
        again: runs it again.
    """
    held = _states(program)
    count = _RERUNS if any(map(_is_source, program.contents)) else 1
    last = _seen(first)
    for i in range(count + 1):
        set_random_state(begin)
        with pyro.validation_enabled(False):
            seen = _seen(again())
        found = _difference(last, seen)
        if found is not None and i > 0:
            return f"{found} differs between runs with the same random numbers of torch's"
        last = seen
        if found is None and i + 1 >= count:
            break
    if _states(program) != held:
        return "it draws from a generator of its own"
    return None


def _is_source(named: tuple[str, Any]) -> bool:
    value = named[1]
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return isinstance(value, _GENERATORS) or str(module).partition(".")[0] in _SOURCES


def _states(program: Program) -> list[bytes]:
    """The states of the generators that a program can get at."""
    return [pickle.dumps(value) for _, value in program.contents if isinstance(value, _GENERATORS)]


def _seen(ran: Ran) -> dict[str, Tensor]:
    """All numbers of a run, by what a message calls them; copies, since the program may write into them."""
    seen = {}
    for site, cost in zip(*ran, strict=True):
        if isinstance(site.value, Tensor):
            seen[f"the value of '{site.name}'"] = site.value.detach().clone()
        if cost is not None:
            seen[f"the cost of '{site.name}'"] = cost.detach().clone()
    return seen


def _difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> str | None:
    for label in dict.fromkeys((*one, *other)):
        if label not in one or label not in other or not _same(one[label], other[label]):
            return label
    return None


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    precision = _ROUNDING * torch.finfo(one.dtype).eps
    return torch.allclose(one, other, rtol=precision, atol=precision, equal_nan=True)
