"""Python's cyclic garbage collector."""

from __future__ import annotations

import gc
import threading
from contextlib import ContextDecorator

_YOUNG = 3000
"""How many objects may be made before the collector looks at them: some dozens of steps."""

_NEVER = 2**30

_lock = threading.Lock()
_inside: list[tuple[int, int, int]] = []


class OldObjectsKept(ContextDecorator):
    """Inside, the collector looks at young objects alone.

    A gradient over many steps makes many objects that live until it is known. The collector would look through all of
    them, and through all that the process holds, every few hundred steps.
    """

    def __enter__(self) -> None:
        with _lock:
            _inside.append(_inside[0] if _inside else gc.get_threshold())
            young = _inside[0][0]
            gc.set_threshold(young and max(young, _YOUNG), _NEVER, _NEVER)

    def __exit__(self, *_: object) -> None:
        with _lock:
            before = _inside.pop()
            if not _inside:
                gc.set_threshold(*before)
