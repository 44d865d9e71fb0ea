"""What actions an environment takes, and whether a distribution gives such actions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ppgrad.core.distributions import distribution_name

Bound = float | tuple[float, ...]

_ROUNDING = 1e-5
"""Bounds that differ by a smaller share of the width are the same."""


@dataclass(frozen=True)
class Discrete:
    """Actions 0 … n − 1.

    Args:
        count: n; a tuple for several such actions at once.
    """

    count: int | tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return () if isinstance(self.count, int) else (len(self.count),)

    def __str__(self) -> str:
        return f"Discrete({self.count})"

    def refuses(self, fn: dist.TorchDistribution) -> str | None:
        """Why ``fn`` gives no actions of this space, and what to write instead; None if it does."""
        name = distribution_name(fn)
        if not _is_discrete(fn):
            return f"{name} gives real numbers. Write {self._mend}"
        if tuple(fn.event_shape) != self.shape:
            return f"{_other_shape(fn, self.shape)}. Write {self._mend}"
        choices = _choices(fn)
        wanted = None if choices is None else torch.tensor(self.count, device=choices.device)
        if choices is None or wanted is None or not bool(torch.eq(choices, wanted).all()):
            has = "no last choice" if choices is None else f"{_listed(choices)} choices"
            return f"{name} has {has}. Write {self._mend}"
        return None

    def exceeded(self, fn: dist.TorchDistribution) -> str | None:
        """Nothing: a distribution has these choices or is refused."""
        return None

    def narrows(self, fn: dist.TorchDistribution) -> str | None:
        """Nothing: a distribution has these choices or is refused."""
        return None

    def clip(self, action: Tensor) -> Tensor:
        """The action as it is."""
        return action

    @property
    def _mend(self) -> str:
        """What gives actions of this space."""
        if isinstance(self.count, int):
            return f"a Categorical of {self.count} logits"
        if len(set(self.count)) > 1:
            return f"a distribution of {self.count} choices, or wrap the environment to take one Discrete action"
        return f"Categorical(logits=…).to_event(1), with logits of shape (episodes, {len(self.count)}, {self.count[0]})"


@dataclass(frozen=True)
class Box:
    """Actions of real numbers between two bounds; a rollout clips what lies beyond.

    Args:
        shape: of one action.
        low, high: the bounds of all numbers, or of each, in one row.
    """

    shape: tuple[int, ...]
    low: Bound = -float("inf")
    high: Bound = float("inf")

    def __str__(self) -> str:
        return f"Box of shape {self.shape} from {_written(self.low)} to {_written(self.high)}"

    def refuses(self, fn: dist.TorchDistribution) -> str | None:
        """Why ``fn`` gives no actions of this space, and what to write instead; None if it does."""
        if _is_discrete(fn):
            return f"{distribution_name(fn)} gives integers. Write a Normal, or another distribution of real numbers"
        return None if tuple(fn.event_shape) == self.shape else _wrong_shape(fn, self.shape)

    def exceeded(self, fn: dist.TorchDistribution) -> str | None:
        """Where a policy's bounds stick out of the space, and what to write instead; None for nowhere."""
        low, high = self._offsets(fn)
        if bool((low < -_ROUNDING).any() or (high > _ROUNDING).any()):
            return f"{self._both(fn)}, and what lies beyond is clipped. Write {self._mend}"
        return None

    def narrows(self, fn: dist.TorchDistribution) -> str | None:
        """Which actions a policy's bounds leave out, and what to write to have them; None for none."""
        low, high = self._offsets(fn)
        if bool((low > _ROUNDING).any() or (high < -_ROUNDING).any()):
            return f"{self._both(fn)}. Write {self._mend} to have all actions"
        return None

    def clip(self, action: Tensor) -> Tensor:
        """The action at the nearest place in the space."""
        if not isinstance(self.low, tuple) and not isinstance(self.high, tuple):
            unbounded = math.isinf(self.low) and math.isinf(self.high)
            return action if unbounded else action.clamp(self.low, self.high)
        return action.clamp(*self._limits(action))

    def _limits(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (torch.as_tensor(bound, dtype=like.dtype, device=like.device) for bound in (self.low, self.high))
        size = math.prod(self.shape)
        return low.expand(size).reshape(self.shape), high.expand(size).reshape(self.shape)

    def _offsets(self, fn: dist.TorchDistribution) -> tuple[Tensor, Tensor]:
        """How far a policy's bounds lie above the space's, as shares of its width; 0 where either has none."""
        low, high = getattr(fn, "bounds", (None, None))
        if low is None or high is None:
            return torch.zeros(()), torch.zeros(())
        lowest, highest = self._limits(low)
        return ((low - lowest) / (highest - lowest)).nan_to_num(), ((high - highest) / (highest - lowest)).nan_to_num()

    def _both(self, fn: Any) -> str:
        low, high = (_written(tuple(bound.reshape(-1).tolist())) for bound in fn.bounds)
        return (
            f"the policy's bounds are ({low}, {high}), the environment's ({_written(self.low)}, {_written(self.high)})"
        )

    @property
    def _mend(self) -> str:
        return f"bounds=({_written(self.low)}, {_written(self.high)})"


ActionSpace = Discrete | Box


def _written(bound: Bound) -> str:
    """A bound as a person would write it: one number where all are the same."""
    numbers = bound if isinstance(bound, tuple) else (bound,)
    shown = [f"{number:g}" for number in numbers]
    return shown[0] if len(set(shown)) == 1 else f"[{', '.join(shown)}]"


def _other_shape(fn: dist.TorchDistribution, shape: tuple[int, ...]) -> str:
    return f"one draw of {distribution_name(fn)} has shape {tuple(fn.event_shape)}, one action {shape}"


def _wrong_shape(fn: dist.TorchDistribution, shape: tuple[int, ...]) -> str:
    event, batch = tuple(fn.event_shape), tuple(fn.batch_shape)
    what = _other_shape(fn, shape)
    missing = len(shape) - len(event)
    if missing > 0 and (batch + event)[-len(shape) :] == shape:
        return f"{what}. Write .to_event({missing})"
    return f"{what}. Give it the event shape {shape}"


def _support(fn: dist.TorchDistribution) -> Any:
    try:
        support = fn.support
    except NotImplementedError:
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _is_discrete(fn: dist.TorchDistribution) -> bool:
    return bool(getattr(_support(fn), "is_discrete", False))


def _choices(fn: dist.TorchDistribution) -> Tensor | None:
    """How many values a draw has, if they are 0, 1, 2 and so on."""
    support = _support(fn)
    if support is constraints.boolean:
        return torch.tensor(2, device="cpu")
    upper, lower = getattr(support, "upper_bound", None), getattr(support, "lower_bound", None)
    if upper is None or lower is None or not bool((_tensor(lower) == 0).all()):
        return None
    return _tensor(upper) + 1


def _tensor(bound: Any) -> torch.Tensor:
    """A bound; a number stays on the host, so that nobody waits for it."""
    return bound if isinstance(bound, torch.Tensor) else torch.tensor(bound, device="cpu")


def _listed(choices: torch.Tensor) -> str:
    distinct = sorted({int(choice) for choice in choices.reshape(-1)})
    return ", ".join(map(str, distinct))
