"""What an environment says is finite, or an error names the step."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ppgrad.core import NonFinite
from ppgrad.core.generators import draws_up_front


class FiniteNumbers:
    """Checks what an environment says: on the host at once, on another device when the program ends or fails.

    So the host waits for the device once in a run, and not in each step.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[Tensor, Tensor, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._seen and not isinstance(error, NonFinite):
            if not _told(~torch.stack([is_finite for is_finite, _, _ in self._seen]).all()):
                return
            for is_finite, tensor, what in self._seen:
                if not bool(is_finite):
                    raise _nonfinite(tensor, what) from error

    def seen(self, numbers: Any, what: str) -> Any:
        """``numbers``, a tensor or a tree of them, unless one is NaN or infinite."""
        for tensor in [numbers] if isinstance(numbers, Tensor) else tree_leaves(numbers):
            if not tensor.is_floating_point():
                continue
            is_finite = torch.isfinite(tensor).all()
            if tensor.device.type != "cpu":
                self._seen.append((is_finite, tensor, what))
            elif _told(~is_finite):
                raise _nonfinite(tensor, what)
        return numbers


def _nonfinite(tensor: Tensor, what: str) -> NonFinite:
    bad = tensor.detach()[~torch.isfinite(tensor.detach())]
    return NonFinite(f"{what} is {float(bad[0]):g}. Keep the environment's numbers finite.")


def _told(condition: Tensor) -> bool:
    """Whether a condition holds, as far as can be told: not under vmap, where each lane has its own, nor in a trace."""
    if draws_up_front():
        return False
    try:
        return bool(condition)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return False
