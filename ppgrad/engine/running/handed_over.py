"""What a program hands over to its sites, as it was then: programs may write into a tensor afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, Transform
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

_SHARING = frozenset((Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.data.__get__))  # type: ignore[attr-defined]
"""Functions whose result lies in the tensor's memory, where torch does not count what is written."""


_IN_INFER = ("context", "active", "baseline")


class WrittenTo(Exception):
    """A program wrote into a tensor that it had drawn or handed over, and no copy was kept."""


class HandedOver(Messenger):
    """Sees to it that each site keeps what it was given: value, distribution, context, mask and scale.

    Without ``copies`` it compares the counters of writes that torch keeps of each tensor, and looks for memory that
    something else than torch can write to. With them the site keeps copies of what the program handed over, and the
    program gets a copy of what was drawn.

    Args:
        copies: whether to copy.

    Raises:
        WrittenTo: on leaving, where ``copies`` are needed.
    """

    def __init__(self, copies: bool):
        super().__init__()
        self._copies = copies
        self._given: list[tuple[Tensor, int]] = []
        self._small: list[Tensor] = []  # draws, contexts and rewards; data may be too much to copy
        self._snapshots: list[tuple[Tensor, Tensor]] = []

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Run the program inside."""
        with self, nullcontext() if self._copies else _Sharing(self._small) as sharing:
            yield
        if (
            (sharing is not None and sharing.found)
            or any(map(_is_foreign, self._small))
            or any(version_of(tensor) != version for tensor, version in self._given)
            or any(not torch.equal(tensor, before) for tensor, before in self._snapshots)
        ):
            raise WrittenTo

    def _pyro_sample(self, message: Any) -> None:
        if not self._copies:
            return
        memo: dict[int, Any] = {}
        for key in ("fn", "scale", "mask"):
            message[key] = _copied(message[key], memo)
        if message["is_observed"]:
            message["value"] = _copied(message["value"], memo)
        infer = message["infer"]
        for key in _IN_INFER:
            if infer.get(key) is not None:
                infer[key] = tree_map(_copied_leaf, infer[key])

    def _pyro_post_sample(self, message: Any) -> None:
        if not self._copies:
            self._note(message)
        elif message["continuation"] is None and isinstance(message["value"], Tensor):
            message["continuation"] = _give_copy

    def _note(self, message: Any) -> None:
        small = [] if message["is_observed"] else [message["value"]]
        small += [leaf for key in _IN_INFER for leaf in tree_leaves(message["infer"].get(key))]
        large = [message["value"], message["mask"], message["scale"]]
        (small if isinstance(message["fn"], Unit) else large).extend(parts_of(message["fn"]))
        large = [tensor for tensor in large if isinstance(tensor, Tensor)]
        small = [tensor for tensor in small if isinstance(tensor, Tensor)]
        self._small += small
        self._given += [(tensor, version_of(tensor)) for tensor in (*small, *large)]
        self._snapshots += [(tensor, tensor.clone()) for tensor in large if _is_foreign(tensor)]


def parts_of(fn: Any) -> Iterator[Tensor]:
    """The tensors that a distribution is made of."""
    for part in vars(fn).values():
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, Distribution):
            yield from parts_of(part)


def _give_copy(message: Any) -> None:
    """The traces have the value; the program may write into what it gets."""
    message["value"] = message["value"].clone()


def version_of(tensor: Tensor) -> int:
    """How often torch has written into a tensor."""
    try:
        return tensor._version
    except RuntimeError:  # of inference mode, where none is kept
        return -1


def _is_foreign(tensor: Tensor) -> bool:
    """Whether a tensor lies in memory that torch did not allocate."""
    try:
        return not tensor.requires_grad and not tensor.untyped_storage().resizable()
    except (NotImplementedError, RuntimeError):
        return False


def _copied_leaf(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.clone()
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _copied(item: Any, memo: dict[int, Any]) -> Any:
    """``item`` with copies of the tensors that it is made of; modules stay as they are."""
    if isinstance(item, list | tuple) and not isinstance(item, torch.Size):
        return type(item)(_copied(part, memo) for part in item)
    if not isinstance(item, Distribution | Transform):
        return _copied_leaf(item)
    if id(item) not in memo:
        memo[id(item)] = other = copy.copy(item)
        parts = vars(item).items()
        vars(other).update({key: part if key == "_cached_x_y" else _copied(part, memo) for key, part in parts})
    return memo[id(item)]


class _Sharing(TorchFunctionMode):
    """Sees whether one of the tensors that were ``given`` hands out its memory."""

    def __init__(self, given: list[Tensor]):
        super().__init__()
        self._given = given
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _SHARING and not self.found:
            self.found = any(args[0] is tensor or _overlap(args[0], tensor) for tensor in self._given)
        return func(*args, **(kwargs or {}))


def _overlap(one: Tensor, other: Tensor) -> bool:
    try:
        return one.untyped_storage()._cdata == other.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return False
