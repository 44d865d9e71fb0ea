"""The lanes of records that took different turns, put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ppgrad.core import Draw, Signal
from ppgrad.engine.running.record import Served


def merged(served: Sequence[Served]) -> tuple[Served, ...]:
    """Put the lanes of records that took different turns together again, site by site.

    A baseline over particles compares all particles that reached the site: whether another
    particle reached it does not depend on this one. Those at which the site has another distribution, and so other
    extras or alternatives, are compared among each other.
    """
    if len({draw.name for draw, _, _ in served}) == len(served):
        return tuple(served)
    groups: dict[Any, list[Served]] = {}
    for draw, signal, estimator in served:
        extras = tuple((name, extra.shape[2:]) for name, extra in draw.extras.items())
        shapes = draw.value.shape[2:], draw.log_prob.dim(), extras
        alternatives = len(signal.alternatives) if signal.has_alternatives else 0
        key: Any = (draw.name, draw.plates, shapes, alternatives, type(estimator))
        if estimator.needs.chain:
            key = (len(groups),)
        groups.setdefault(key, []).append((draw, signal, estimator))
    return tuple(group[0] if len(group) == 1 else _joined(group) for group in groups.values())


def _joined(group: list[Served]) -> Served:
    draws = [draw for draw, _, _ in group]
    first = draws[0]
    joined = Draw(
        first.name,
        torch.cat([draw.value for draw in draws]),
        torch.cat([draw.log_prob for draw in draws]),
        first.plates,
        first.event_dim,
        None if first.context is None else tree_map(lambda *lanes: torch.cat(lanes), *(d.context for d in draws)),
        {key: torch.cat([draw.extras[key] for draw in draws]) for key in first.extras},
        first.discount,
        None if first.active is None else torch.cat([draw.active for draw in draws if draw.active is not None]),
    )
    return joined, Signal.joined([signal for _, signal, _ in group]), group[0][2]
