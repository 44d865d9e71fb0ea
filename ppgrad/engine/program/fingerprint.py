"""Keys of programs, objectives and arguments: where they are equal, what is known of a program still holds."""

from __future__ import annotations

import enum
import functools
from collections.abc import Hashable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_structure

from ppgrad.engine.program.program import Program, is_data, tensors_of

_PLAIN = (bool, int, float, complex, str, bytes, type(None))

_OF_EVERY_MODULE = frozenset(vars(torch.nn.Module())) - {"training"}

_BY_VALUE = (*_PLAIN, range, frozenset, enum.Enum, np.generic, torch.dtype, torch.device, torch.Size)


class Key(tuple[Any, ...]):
    """A tuple that remembers its hash."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash


class Same:
    """An object that only itself is equal to. It is held, so that no other gets its ``id``."""

    __slots__ = ("value",)

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Same and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def kind(argument: Any) -> Hashable:
    """What of an argument can change a program's structure, or which parameters are trained."""
    if isinstance(argument, Tensor):
        data = argument.shape, argument.dtype, argument.device
        return id(argument) if argument.requires_grad else data
    if type(argument) is float:
        return float  # data, as a tensor is: what it does to the structure is checked in every run
    return argument.shape if isinstance(argument, np.ndarray) else _of_value(argument)


def called(function: Any) -> Any:
    """What is run: the function itself; of a partial object, which is made anew, its function and what it binds."""
    if type(function) is not functools.partial:
        return function
    bound = (function.args, function.keywords)
    return called(function.func), tuple(map(kind, tree_leaves(bound))), tree_structure(bound)


def settings(objective: object) -> Hashable:
    """The numbers and words among the public attributes of an objective."""
    return tuple((name, type(x), x) for name, x in vars(objective).items() if name[0] != "_" and isinstance(x, _PLAIN))


def fingerprint(program: Program) -> Hashable:
    """What a program reads: numbers and words themselves, which tensors, functions and modules, in which mode.

    Tensors among its arguments are data, and left out. It looks into arguments, closures, globals, defaults, owners
    and their attributes, two objects deep, and into the plain attributes of modules; it does not look into slots,
    classes, Python's modules and lists of more than a thousand items.
    """
    data = {id(leaf) for leaf in program.leaves if is_data(leaf)}
    found: list[Hashable] = [torch.get_default_dtype()]
    found += [torch.get_autocast_dtype(device) for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
    for name, value in program.contents:
        if isinstance(value, torch.nn.Module):
            found.append((name, id(value)))
            found += [plain for part in value.modules() for plain in _attributes(part)]
            found += map(_identity, tensors_of(value))
        elif not isinstance(value, Tensor):
            found.append((name, _of_value(value)))
        elif id(value) not in data:
            found.append((name, _identity(value)))
    return tuple(found)


def _attributes(module: torch.nn.Module) -> Iterator[Hashable]:
    for name, value in vars(module).items():
        if name not in _OF_EVERY_MODULE and isinstance(value, _PLAIN):
            yield name, type(value), value


def _of_value(value: Any) -> Hashable:
    if _is_by_value(type(value)):  # type: ignore[arg-type]
        return type(value), value
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, hash(value.tobytes())
    return frozenset(value) if isinstance(value, set) else Same(value)


@cache
def _is_by_value(cls: type) -> bool:
    return issubclass(cls, _BY_VALUE)


def _identity(tensor: Tensor) -> Hashable:
    return id(tensor), tensor.requires_grad
