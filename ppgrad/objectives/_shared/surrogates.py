"""The surrogates of all draws, those that allow it in one call for many draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import Draw, Memory, Signal
from ppgrad.core.generators import draws_up_front
from ppgrad.engine.running.record import Served


def surrogates(served: Sequence[Served], memories: Mapping[str, Memory]) -> list[Tensor]:
    """The surrogate of every draw that has one.

    Draws that one estimator serves in the same plates stand side by side along the second lane dimension,
    if the estimator's needs say ``joins_steps``: a chain of many steps then costs little more than one step.
    """
    terms = []
    stacks = not draws_up_front()  # a compiler fuses what is not stacked
    groups: dict[Any, list[Served]] = {}
    for draw, signal, estimator in served:
        if stacks and estimator.needs.joins_steps and signal.lies_in(draw.log_prob.shape[:2]):
            key = (id(estimator), draw.plates, draw.log_prob.shape, draw.log_prob.dtype, draw.log_prob.device)
            groups.setdefault(key, []).append((draw, signal, estimator))
        else:
            terms.append(estimator.surrogate(draw, signal, memories.get(draw.name, {})))
    for group in groups.values():
        draw, signal, estimator = group[0] if len(group) == 1 else _side_by_side(group)
        terms.append(estimator.surrogate(draw, signal, {}))
    return [term for term in terms if term is not None]


def _side_by_side(group: Sequence[Served]) -> Served:
    draws = [draw for draw, _, _ in group]
    first = draws[0]
    draw = Draw(
        first.name,
        first.value,  # not that of the others: an estimator that joins steps does not read it
        torch.cat([draw.log_prob for draw in draws], 1),
        first.plates,
        first.event_dim,
    )
    return draw, Signal.joined([signal for _, signal, _ in group], 1), group[0][2]
