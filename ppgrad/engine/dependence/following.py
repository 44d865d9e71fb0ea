"""Follows values through torch's operations: from which draws a tensor was computed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
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


Stored = tuple[Tensor, Any]
"""A tensor and its memory."""

_UNKNOWN: tuple[Origins, Any] = (0, None)
_NESTED = (list, tuple, dict)
_SCALARS = frozenset((int, float, bool, type(None), str, torch.Size, torch.dtype, torch.device))


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

    @property
    def has_origins(self) -> bool:
        """Whether any tensor has one."""
        return bool(self._known)

    def mark(self, value: Tensor) -> Origins:
        """Make a value that was drawn an origin of its own, in place of what it was computed from."""
        origin = 1 << self.marked
        self.marked += 1
        storage = _storage(value)
        if storage is not None:
            self._known[_key(storage)] = origin, storage
            self._views.pop(id(value), None)
        return origin

    def origins(self, tree: Any) -> Origins:
        """The draws that the tensors of a tree were computed from."""
        return self.origins_of(_stored(tree)) if self._known else 0

    def origins_of(self, read: Sequence[Stored]) -> Origins:
        """The same of tensors and their memory."""
        found = 0
        for tensor, storage in read:
            if storage is not None:
                found |= self._known.get(_key(storage), _UNKNOWN)[0]
                found |= self._views.get(id(tensor), _UNKNOWN)[0]
        return found

    def add(self, tensors: Iterable[Tensor], origins: Origins) -> None:
        """Add origins to tensors."""
        for tensor in tensors:
            self._add(_storage(tensor), origins)

    def _add(self, storage: Any, origins: Origins) -> None:
        if storage is not None:
            key = _key(storage)
            self._known[key] = self._known.get(key, _UNKNOWN)[0] | origins, storage

    def hand_on(self, made: Sequence[Tensor], read: Sequence[Stored], origins: Origins) -> None:
        """Add origins to what an operation made.

        A view of what was read, such as ``table[index]``, has them for itself alone: the table has not changed.
        """
        memory = {_key(storage) for _, storage in read if storage is not None}
        for tensor in made:
            storage = None if any(tensor is one for one, _ in read) else _storage(tensor)
            if storage is not None and _key(storage) not in memory:
                self._add(storage, origins)
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
        name, following = getattr(func, "__name__", ""), self._following
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            if name in _LEAVING and following.has_origins:  # or was to leave, as several values that are no one number
                origins = following.origins((args, kwargs))
                if origins:
                    following.left_torch(origins)
        made = _tensors(result)
        if following.has_origins and made:  # most functions are about shapes and types
            read = _stored((args[1:] if name in _VALUELESS else args, kwargs))
            origins = following.origins_of(read)
            if origins:
                following.hand_on(made, read, origins)
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
        values = args[1:] if func.__name__.partition(".")[0] in _VALUELESS else args
        read = _stored((values, kwargs)) if following.has_origins or following.drawing else []
        origins = following.origins_of(read)
        if following.drawing and torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            origins |= following.drawing
        if origins:
            following.hand_on(_tensors(result), read, origins)
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
    found: list[Tensor] = []
    _collect(tree, found)
    return found


def _stored(tree: Any) -> list[Stored]:
    return [(tensor, _storage(tensor)) for tensor in _tensors(tree)]


def _collect(tree: Any, found: list[Tensor]) -> None:
    if isinstance(tree, Tensor):
        found.append(tree)
    elif type(tree) not in _SCALARS and isinstance(tree, _NESTED):
        for item in tree.values() if isinstance(tree, dict) else tree:
            _collect(item, found)


def _storage(tensor: Tensor) -> Any:
    """The memory of a tensor; None for one without, as inside of a vmap."""
    try:
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def _key(storage: Any) -> int:
    return int(storage._cdata)
