"""How `fit` is to train: what it was told, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppgrad.core import InvalidInput
from ppgrad.core.arguments import checked_seed, flag
from ppgrad.train.optimizers import Stepper

Metrics = Mapping[str, float]
Arguments = tuple[Any, ...] | Callable[[int], tuple[Any, ...]]


@dataclass(frozen=True)
class Settings:
    """What `fit` was told of how to train; see there."""

    steps: int
    stepper: Stepper
    max_grad_norm: float | None
    seed: int | None
    checkpoint: Path | None
    checkpoint_every: int
    evaluate_every: int | None
    evaluation_episodes: int
    evaluation_deterministic: bool
    evaluate: Callable[[], Metrics] | None
    callbacks: Sequence[Callable[[Metrics], object]]
    stop_when: Callable[[Metrics], bool] | None
    further: Mapping[str, str]

    def in_words(self) -> dict[str, str]:
        """What a run that goes on from a checkpoint must have in common with the one that wrote it."""
        return {
            **self.stepper.describe(),
            "max_grad_norm": repr(self.max_grad_norm),
            "seed": repr(self.seed),
            **self.further,
        }


def in_words(settings: Mapping[str, object]) -> dict[str, str]:
    """A person's own settings as text, which a checkpoint keeps."""
    return {str(name): value if isinstance(value, str) else repr(value) for name, value in settings.items()}


def check_numbers(
    steps: Any,
    learning_rate: Any,
    max_grad_norm: Any,
    seed: Any,
    checkpoint_every: Any,
    evaluate_every: Any,
    evaluation_episodes: Any,
) -> None:
    """Raise unless every number is in its range.

    Raises:
        InvalidInput: names the argument.
    """
    counts = {
        "steps": steps,
        "checkpoint_every": checkpoint_every,
        "evaluate_every": 1 if evaluate_every is None else evaluate_every,
        "evaluation_episodes": evaluation_episodes,
    }
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidInput(f"fit({name}={count!r}): write an integer from 1 up.")
    if learning_rate is not None and not 0 <= _number(learning_rate) < math.inf:
        raise InvalidInput(f"fit(learning_rate={learning_rate!r}): write a number from 0 up.")
    if max_grad_norm is not None and not _number(max_grad_norm) > 0:
        raise InvalidInput(f"fit(max_grad_norm={max_grad_norm!r}): write a positive number, or None.")
    checked_seed(seed)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def check_functions(evaluate: Any, evaluate_every: Any, callbacks: Any, stop_when: Any) -> None:
    """Raise unless all of them can be called, and ``evaluate`` ever is.

    Raises:
        InvalidInput: names the argument.
    """
    if evaluate is not None and evaluate_every is None:
        raise InvalidInput("evaluate= is never called without evaluate_every. Write evaluate_every=100, say.")
    if callable(callbacks) or not isinstance(callbacks, Sequence):
        raise InvalidInput(f"fit(callbacks={callbacks!r}): write a list of functions, as callbacks=[print].")
    numbered = {f"callbacks[{place}]": function for place, function in enumerate(callbacks)}
    for name, function in {"stop_when": stop_when, "evaluate": evaluate, **numbered}.items():
        if function is not None and not callable(function):
            raise InvalidInput(f"fit({name}={function!r}): write a function.")


def check_program_arguments(args: Any, kwargs: Any, settings: Any) -> None:
    """Raise unless ``args`` is a tuple or a function, and the others are dicts.

    Raises:
        InvalidInput: names the argument.
    """
    if not isinstance(args, tuple | list) and not callable(args):
        raise InvalidInput(f"fit(args={args!r}): write a tuple, as args=({args!r},), or a function of the step.")
    for name, value in (("kwargs", kwargs), ("settings", settings)):
        if value is not None and not isinstance(value, Mapping):
            raise InvalidInput(f"fit({name}={value!r}): write a dict.")


def check_flags(**flags: Any) -> None:
    """Raise unless each is a truth value.

    Raises:
        InvalidInput: names the argument.
    """
    for name, value in flags.items():
        flag("fit", name, value)
