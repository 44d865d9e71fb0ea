"""Follows values through torch's operations: from which draws a tensor was computed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Origins = int
"""A set of draws: bit i stands for the i-th draw that was marked."""

_LEAVING = frozenset(
    [
        "item",
        "tolist",
        "numpy",
        "__array__",
        "__dlpack__",
        "data_ptr",
        "storage",
        "equal",
        "allclose",
        "is_nonzero",
        "nonzero",
        "argwhere",
        "masked_select",
        "unique",
        "unique_consecutive",
        "__bool__",
        "__int__",
        "__float__",
        "__index__",
        "__complex__",
        "__contains__",
        "__format__",
        "__repr__",
    ]
)
"""Functions of torch that hand a value to Python, or whose result has a shape that depends on values."""

_VALUELESS = frozenset(
    [
        *("empty_like", "zeros_like", "ones_like", "full_like"),
        *("new", "new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full", "new_tensor"),
    ]
)
"""Functions of torch that read the shape, the dtype and the device of their first argument, and not its value."""

_PASSED_OVER = (__name__, "torch.overrides", "torch._tensor", "torch._tensor_str", "torch.utils")
"""Modules through which torch's own functions call each other."""

_INNER = (
    *("torch.distributions", "torch.autograd", "pyro."),
    *(f"ppgrad.{room}" for room in ("core", "estimators", "baselines", "engine", "objectives", "sites")),
)
"""Modules in which a value that leaves torch decides on an error, or on how to compute what torch follows anyway."""


class Following:
    """Origins of tensors, kept by storage: a view has those of what it was made from, and may have more of its own.

    Operations hand the origins of what they read on to what they return and to what they change in place. A random
    operation in the course of `drawing` adds the draw's own. What Python computes from a value that has left torch
    (``.item()``, NumPy, ``if z``, a list of floats) cannot be followed: `escapes` says where that happened.

    Attributes:
        drawing: the origin of the draw in progress; 0 for none.
        escapes: ``(draws marked so far, place in the source)`` for each value with an origin that left torch.
        left: the origins of each of these values, and the place.
    """

    def __init__(self) -> None:
        self.drawing: Origins = 0
        self.marked = 0
        self.escapes: list[tuple[int, str]] = []
        self.left: list[tuple[Origins, str]] = []
        self._known: dict[int, tuple[Origins, Any]] = {}
        self._views: dict[int, tuple[Origins, Tensor]] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Follow all operations inside."""
        with _Functions(self), _Operations(self):
            yield

    def mark(self, value: Tensor) -> Origins:
        """Make a value that was drawn an origin of its own, in place of what it was computed from."""
        origin = 1 << self.marked
        self.marked += 1
        storage = _storage(value)
        if storage is not None:
            self._known[_key(storage)] = origin, storage
        return origin

    def origins(self, tree: Any) -> Origins:
        """The draws that the tensors of a tree were computed from."""
        found = 0
        if self._known:
            for tensor in _tensors(tree):
                storage = _storage(tensor)
                if storage is not None:
                    found |= self._known.get(_key(storage), (0, None))[0]
                    found |= self._views.get(id(tensor), (0, None))[0]
        return found

    def add(self, tensors: Iterable[Tensor], origins: Origins) -> None:
        """Add origins to tensors."""
        for tensor in tensors:
            storage = _storage(tensor)
            if storage is not None:
                known = self._known.get(_key(storage), (0, None))[0]
                self._known[_key(storage)] = known | origins, storage

    def hand_on(self, result: Any, read: Any, origins: Origins) -> None:
        """Add origins to what an operation made.

        A view of what was read, such as ``table[index]``, has them for itself alone: the table has not changed.
        """
        tensors = _tensors(read)
        memory = {_key(storage) for storage in map(_storage, tensors) if storage is not None}
        for tensor in _tensors(result):
            storage = None if any(tensor is one for one in tensors) else _storage(tensor)
            if storage is not None and _key(storage) not in memory:
                self.add([tensor], origins)
            elif storage is not None:
                self._views[id(tensor)] = self._views.get(id(tensor), (0, tensor))[0] | origins, tensor

    def left_torch(self, origins: Origins) -> None:
        """Note that a value with ``origins`` is now in Python's hands, unless a library decides on an error with it."""
        frame = sys._getframe(1)
        while frame.f_back is not None and (
            str(frame.f_globals.get("__name__")).startswith(_PASSED_OVER)
            or frame.f_code.co_name == "__torch_function__"  # of another mode
        ):
            frame = frame.f_back
        if not str(frame.f_globals.get("__name__")).startswith(_INNER):
            line = traceback.extract_stack(frame, limit=1)[0]
            place = f"{Path(line.filename).name}:{line.lineno} `{(line.line or '')[:80]}`"
            self.escapes.append((self.marked, place))
            self.left.append((origins, place))


class _Functions(TorchFunctionMode):
    """Sees what leaves torch, and functions that read tensors from lists of Python's."""

    def __init__(self, following: Following):
        super().__init__()
        self._following = following

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = getattr(func, "__name__", "") in _LEAVING
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            origins = self._following.origins((args, kwargs))
            if origins and leaves:  # or was to leave, as several values that are no one number
                self._following.left_torch(origins)
        read = args[1:] if getattr(func, "__name__", "") in _VALUELESS else args
        if origins and (read is args or (origins := self._following.origins((read, kwargs)))):
            self._following.hand_on(result, (read, kwargs), origins)
        return result


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, those inside of functions of torch and of autograd functions included."""

    supports_higher_order_operators = True

    def __init__(self, following: Following):
        super().__init__()  # type: ignore[no-untyped-call]
        self._following = following

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        following = self._following
        if func.__name__.partition(".")[0] in _VALUELESS:
            args = args[1:]
        origins = following.origins((args, kwargs))
        if following.drawing and torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            origins |= following.drawing
        if origins:
            following.hand_on(result, (args, kwargs), origins)
            following.add(_changed(func, args, kwargs), origins)
        return result


def _changed(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The arguments that an operation changes in place."""
    schema = getattr(func, "_schema", None)
    if schema is None or not schema.is_mutable:
        return
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(args[i] if i < len(args) else kwargs.get(argument.name))


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts: all that an operation of torch takes or returns."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return []
    return [tensor for item in tree for tensor in _tensors(item)]


def _storage(tensor: Tensor) -> Any:
    """The memory of a tensor; None for one without, as inside of a vmap."""
    try:
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def _key(storage: Any) -> int:
    return int(storage._cdata)
