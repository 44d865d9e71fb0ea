"""What actions an environment takes, and whether a distribution gives such actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from ppgrad.core.distributions import distribution_name


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
            return f"{name} gives real numbers. Write a Categorical of {self.count} logits"
        if tuple(fn.event_shape) != self.shape:
            return _wrong_shape(fn, self.shape)
        choices = _choices(fn)
        wanted = None if choices is None else torch.tensor(self.count, device=choices.device)
        if choices is None or wanted is None or not bool(torch.eq(choices, wanted).all()):
            has = "no last choice" if choices is None else f"{_listed(choices)} choices"
            return f"{name} has {has}. Write a distribution of {self.count} choices"
        return None


@dataclass(frozen=True)
class Box:
    """Actions of real numbers between two bounds; the environment clips what lies beyond.

    Args:
        shape: of one action.
        low, high: the bounds of each number.
    """

    shape: tuple[int, ...]
    low: float = -float("inf")
    high: float = float("inf")

    def __str__(self) -> str:
        return f"Box of shape {self.shape} from {self.low:g} to {self.high:g}"

    def refuses(self, fn: dist.TorchDistribution) -> str | None:
        """Why ``fn`` gives no actions of this space, and what to write instead; None if it does."""
        if _is_discrete(fn):
            return f"{distribution_name(fn)} gives integers. Write a Normal, or another distribution of real numbers"
        return None if tuple(fn.event_shape) == self.shape else _wrong_shape(fn, self.shape)


ActionSpace = Discrete | Box


def _wrong_shape(fn: dist.TorchDistribution, shape: tuple[int, ...]) -> str:
    event, batch = tuple(fn.event_shape), tuple(fn.batch_shape)
    what = f"one draw of {distribution_name(fn)} has shape {event}, one action {shape}"
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


def _choices(fn: dist.TorchDistribution) -> torch.Tensor | None:
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
