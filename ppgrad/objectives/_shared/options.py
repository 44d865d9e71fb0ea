"""The options of an objective: counts, and those that no objective has."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from pyro.infer import ELBO as PyroELBO

from ppgrad.core import InvalidInput

_ELSEWHERE = {"gamma": "discount", "n_particles": "num_particles", "ent_coef": "MaxEntReturn(temperature=…)"}
"""What other libraries call it."""


def check_options(kind: type[PyroELBO], given: Mapping[str, Any]) -> None:
    """Raise if one of ``given`` is no option of Pyro's, to which those are handed that nobody else has taken."""
    known = [name for name in inspect.signature(PyroELBO.__init__).parameters if name != "self"]
    for name in given:
        if name not in known:
            classes = [each for each in kind.__mro__ if issubclass(each, PyroELBO)]
            signatures = [inspect.signature(each.__init__).parameters.values() for each in classes]  # type: ignore[misc]
            own = dict.fromkeys(p.name for each in signatures for p in each if p.kind is not p.VAR_KEYWORD)
            words = [word for word in own if word != "self"]
            close = [_ELSEWHERE[name]] if name in _ELSEWHERE else difflib.get_close_matches(name, words, 1)
            raise InvalidInput(
                f"{kind.__name__}({name}=…): there is no such option. Write {close[0] if close else ', '.join(words)}."
            )


def check_count(kind: type[PyroELBO], name: str, value: Any) -> None:
    """Raise if an option is no integer from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"{kind.__name__}({name}={value!r}): {name} is an integer from 1 up.")


def check_plate_name(kind: type[PyroELBO], over: Any) -> None:
    """Raise unless ``over`` is a plate's name, or None."""
    if over is not None and not isinstance(over, str):
        raise InvalidInput(f"{kind.__name__}(over={over!r}): over is the name of a plate. Write over='episodes'.")
