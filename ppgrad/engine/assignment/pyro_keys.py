"""What Pyro's own keys of ``infer`` choose at a site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppgrad.baselines import PyroBaseline
from ppgrad.core import Estimator, InvalidAssignment
from ppgrad.estimators import ScoreFunction

_ENUMERATIONS = ("parallel", "sequential", "flat")


def check_keys(name: str, infer: Mapping[str, Any]) -> None:
    """Raise at a choice of Pyro's that nothing here would read."""
    if infer.get("enumerate") not in (None, *_ENUMERATIONS):
        raise InvalidAssignment(
            f"Site '{name}': infer['enumerate'] is {infer['enumerate']!r}. Write 'parallel' or 'sequential'."
        )
    if infer.get("num_samples") is not None:
        raise InvalidAssignment(
            f"Site '{name}': infer['num_samples'], Pyro's tensor Monte Carlo, is read by nothing here. Remove it; to "
            f"average more draws write num_particles={infer['num_samples']} in the objective."
        )


def with_pyro_baseline(chosen: Estimator, name: str, infer: Mapping[str, Any]) -> Estimator:
    """``chosen`` with the baseline that Pyro's ``infer["baseline"]`` asks for."""
    keys = infer.get("baseline")
    if not keys:
        return chosen
    if not isinstance(keys, Mapping):
        raise InvalidAssignment(
            f"Site '{name}': infer['baseline'] is {keys!r}. Write a dict, as in {{'use_decaying_avg_baseline': True}}."
        )
    baseline = PyroBaseline.from_infer(name, keys)
    if baseline is None:
        return chosen
    if not isinstance(chosen, ScoreFunction):
        raise InvalidAssignment(
            f"Site '{name}' has infer['baseline'], which {chosen!r} does not read. "
            f"Remove it, or choose the score function: sites={{'{name}': ScoreFunction()}}."
        )
    if chosen.baseline is not None:
        raise InvalidAssignment(
            f"Site '{name}' has infer['baseline'] and is served by {chosen!r}, which has a baseline of its own. "
            "Remove one of the two."
        )
    return ScoreFunction(baseline)
