"""Objectives whose gradient is a formula of its own over scores."""

from __future__ import annotations

from collections.abc import Sequence

from ppgrad.core import Unsupported
from ppgrad.engine.running.record import Record
from ppgrad.estimators import ScoreFunction


def check_only_scores(records: Sequence[Record], objective: str, instead: str) -> None:
    """Raise if a site has another estimator than ``ScoreFunction()``, without a baseline."""
    for entry in (entry for record in records for entry in record.entries):
        if entry.estimator is not None and entry.estimator != ScoreFunction():
            raise Unsupported(
                f"{entry.estimator!r} cannot serve site '{entry.name}': {objective} is a baseline of its own for "
                f"ScoreFunction().\nWrite {objective} without an estimator for it, or {instead}."
            )
