"""Schedules of the learning rate: by name, torch's, or a function that makes one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from ppgrad.core import InvalidInput

_FACTORS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
}
"""The learning rate after a share of all steps, relative to the first."""

SCHEDULES = ("constant", *_FACTORS)

SCHEDULE_EXAMPLE = "Write schedule='cosine', or functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.99)."


def made_schedule(schedule: Any, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler | None:
    """The schedule of the learning rate that a person asks for.

    Raises:
        InvalidInput: it cannot be made, is none, or belongs to another optimizer.
    """
    if schedule is None:
        return None
    if isinstance(schedule, str):
        factor = _FACTORS[schedule]
        return LambdaLR(optimizer, lambda step: factor(min(1.0, step / steps)))
    if not isinstance(schedule, LRScheduler):
        try:
            schedule = schedule(optimizer)
        except TypeError as error:
            raise InvalidInput(f"schedule={name_of(schedule)} cannot be made: {error}. {SCHEDULE_EXAMPLE}") from error
    if not isinstance(schedule, LRScheduler):
        raise InvalidInput(f"schedule= makes {schedule!r}, which is no schedule. {SCHEDULE_EXAMPLE}")
    if schedule.optimizer is not optimizer:
        raise InvalidInput("The schedule belongs to another optimizer. Pass both of a pair, or the schedule's class.")
    return schedule


def described(asked: Any, schedule: LRScheduler | None, steps: int) -> dict[str, str]:
    """A schedule with the settings that it depends on."""
    if isinstance(asked, str):
        return {"schedule": asked, "steps": str(steps)}
    return {"schedule": "constant" if schedule is None else type(schedule).__name__}


def advance_schedule(schedule: Any, loss: float) -> None:
    """Go on by one step in a schedule, if there is one; a plateau sees the loss."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(loss)
    elif schedule is not None:
        schedule.step()


def current_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the first group of parameters, NaN for an optimizer without one."""
    return float(optimizer.param_groups[0].get("lr", math.nan))


def name_of(thing: Any) -> str:
    """The name of a function or a class; else of the thing's class."""
    return str(getattr(thing, "__name__", None) or type(thing).__name__)
