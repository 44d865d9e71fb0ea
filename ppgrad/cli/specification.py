"""Estimators as words on a command line: ``score+loo``, ``pathwise@8``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, cast

from ppgrad.baselines import VIMCO, Constant, DeltaMethod, LeaveOneOut, MovingAverage, OptimalConstant, SelfCritical
from ppgrad.core import Baseline, Estimator, InvalidInput
from ppgrad.estimators import ScoreFunction, all_estimators

_BASELINES: dict[str, Callable[..., Baseline]] = {
    "loo": LeaveOneOut,
    "average": MovingAverage,
    "constant": Constant,
    "optimal": OptimalConstant,
    "critical": SelfCritical,
    "delta": DeltaMethod,
    "vimco": VIMCO,
}

GRAMMAR = "ESTIMATOR[=ARGUMENT][+BASELINE[=ARGUMENT]][@PARTICLES]"


def estimator_words() -> dict[str, type[Estimator]]:
    """The word of each estimator: ``score`` for ScoreFunction, else the class name with underscores.

    One that needs a network has no word.
    """
    words = {
        re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", cls.__name__).lower(): cls
        for cls in all_estimators()
        if all(entry.default is not MISSING or entry.default_factory is not MISSING for entry in fields(cast(Any, cls)))
    }
    return {"score": words.pop("score_function"), **words}


def baseline_words() -> tuple[str, ...]:
    """The words of the baselines that the command line offers."""
    return tuple(_BASELINES)


def parse(text: str) -> tuple[Estimator, int | None]:
    """The estimator and the number of particles, or None, that a word asks for.

    >>> parse("score+loo=episodes@4")
    (ScoreFunction(baseline=LeaveOneOut(over='episodes')), 4)
    """
    body, _, particles = text.strip().partition("@")
    head, _, baseline = body.partition("+")
    word, has_argument, argument = head.partition("=")
    words = estimator_words()
    if word not in words:
        raise InvalidInput(f"Estimator {text!r} is unknown. Write {GRAMMAR}, with one of {', '.join(words)}.")
    if particles and (not particles.isdecimal() or int(particles) < 1):
        raise InvalidInput(f"Estimator {text!r}: the number of particles after @ is an integer from 1 up.")
    count = int(particles) if particles else None
    if not baseline:
        return (_with_argument(text, words[word], argument) if has_argument else words[word]()), count
    if words[word] is not ScoreFunction:
        raise InvalidInput(f"Estimator {text!r}: only score reads a baseline. Write {word} or score+{baseline}.")
    return ScoreFunction(_baseline(text, baseline)), count


def _with_argument(text: str, cls: type[Estimator], argument: str) -> Estimator:
    first = next(iter(fields(cast(Any, cls))), None)
    kind = None if first is None or first.default is MISSING else type(first.default)
    try:
        if kind in (int, float):
            return cls(**{first.name: kind(argument)})  # type: ignore[union-attr]
    except ValueError as error:
        raise InvalidInput(f"Estimator {text!r}: write a number after the =, as in sum_and_sample=2.") from error
    raise InvalidInput(f"Estimator {text!r}: {cls.__name__} takes no number. Write it without the =.")


def _baseline(text: str, words: str) -> Baseline:
    word, has_argument, argument = words.partition("=")
    if word not in _BASELINES:
        raise InvalidInput(f"Estimator {text!r}: baseline {word!r} is unknown. Write one of {', '.join(_BASELINES)}.")
    if word == "loo":
        return LeaveOneOut(argument or None)
    try:
        return _BASELINES[word](*([float(argument)] if has_argument else []))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"Estimator {text!r}: write a number after {word}=, as in score+{word}=0.5.") from error
