"""Where a gradient that is not finite comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import Memory
from ppgrad.core.generators import other_draws, set_random_state
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.program.parameters import buffers_unchanged
from ppgrad.objectives import Objective


def gradient_explained(
    objective: Objective,
    prepared: Prepared,
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor | None],
    generators: Any,
    memory: Mapping[str, Memory],
) -> str:
    """Which site's term gives which parameter a gradient that is NaN or infinite.

    The step is taken again from the generators' state at its beginning, without learning.

    Args:
        objective, prepared: whose gradient it is.
        parameters: by name.
        gradients: theirs, some of which are not finite.
        generators: the state that the estimate began with.
        memory: what the estimate remembered of each site.
    """
    with other_draws(), buffers_unchanged(prepared.executor.program):
        set_random_state(generators)
        for site, what, term in _terms(objective, prepared, memory):
            if not term.requires_grad:
                continue
            found = torch.autograd.grad(term.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None and not bool(torch.isfinite(gradient).all()):
                    bad = float(gradient[~torch.isfinite(gradient)][0])
                    return (
                        f"At site '{site}' the gradient of the {what} with respect to parameter '{name}' is {bad:g}. "
                        "Keep it finite: look for a square root, a logarithm or a quotient at the edge of its range."
                    )
    name = next(name for name, gradient in gradients.items() if not is_finite(gradient))
    return f"The gradient of parameter '{name}' is not finite. Keep the program's numbers finite."


def _terms(objective: Objective, prepared: Prepared, memory: Mapping[str, Memory]) -> Iterator[tuple[str, str, Tensor]]:
    estimate = objective.estimate(replace(prepared.executor, together=False), memory=memory)
    for record in estimate.records:
        for entry in record.entries:
            if entry.cost is not None:
                yield entry.name, "cost", entry.cost
    for draw, signal, estimator in estimate.served:
        term = estimator.surrogate(draw, signal, memory.get(draw.name, {}))
        if term is not None:
            yield draw.name, f"surrogate of {type(estimator).__name__}", term


def is_finite(gradient: Tensor | None) -> bool:
    """Whether there is nothing in a gradient that is NaN or infinite."""
    return gradient is None or bool(torch.isfinite(gradient).all())
