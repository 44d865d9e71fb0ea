"""Many independent estimates of one gradient."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ppgrad.core import Memory, PpgradError
from ppgrad.core.generators import random_state, seed_generators, set_random_state
from ppgrad.engine.checking.explaining import explain_nonfinite, not_finite
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.program.program import Program, tensors_held
from ppgrad.engine.running.lanes import CannotVectorize, vectorizable, vectorized
from ppgrad.measurement.gradient import ascent, reversed_signs
from ppgrad.objectives import Objective

_BUDGET = 128 * 2**20
"""Bytes that the graphs and the gradients of one chunk may take, where its size is left open."""


@dataclass
class Replicates:
    """Estimates of one gradient, and what they took.

    Args:
        draws: ``{parameter: (replicates, *shape)}``, in the direction of ascent.
        losses: the loss of each replicate.
        seconds: wall time for one replicate.
        evaluations: program executions for one replicate.
    """

    draws: dict[str, Tensor]
    losses: Tensor
    seconds: float
    evaluations: int


def replicate(
    objective: Objective, prepared: Prepared, replicates: int, seed: int, chunk_size: int | None
) -> Replicates:
    """Estimate the gradient ``replicates`` times, in chunks under vmap."""
    seed_generators(seed)
    memory = objective.recalled(prepared)
    chunk_size = chunk_size or default_chunk_size(prepared)
    chunks: list[tuple[dict[str, Tensor], Tensor]] = []
    seconds = 0.0
    lanes = min(chunk_size, replicates)
    compiled = objective.compiled_replicates(prepared, lanes, memory)  # takes its time, once
    seed_generators(distant_seed(seed, 0))
    for start in range(0, replicates, chunk_size):
        begin = time.perf_counter()
        count = min(chunk_size, replicates - start)
        if compiled is None:
            chunks.append(_chunk(objective, prepared, count, memory))
        else:
            chunks.append(_compiled_chunk(objective, prepared, lanes, count, memory))
        seconds += time.perf_counter() - begin
    draws = {
        name: torch.cat([_of(grads, name, leaf, len(loss)) for grads, loss in chunks])
        for name, leaf in prepared.parameters.items()
    }
    losses = torch.cat([loss for _, loss in chunks])
    _check(prepared, draws, losses)
    return Replicates(draws, losses, seconds / replicates, prepared.executor.evaluations)


def distant_seed(seed: int, place: int) -> int:
    """The seed of one of many streams, far from those of neighbouring seeds."""
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])


def _compiled_chunk(
    objective: Objective, prepared: Prepared, lanes: int, count: int, memory: Mapping[str, Memory]
) -> tuple[dict[str, Tensor], Tensor]:
    """The first ``count`` of the replicates that a compiled graph makes at once."""
    found = objective.compiled_replicates(prepared, lanes, memory)
    assert found is not None
    wide = {name: leaf.expand(lanes, *leaf.shape) for name, leaf in prepared.parameters.items()}
    draws = reversed_signs(wide, found[0])
    return {name: draw[:count] for name, draw in draws.items()}, found[1][:count]


def _chunk(
    objective: Objective, prepared: Prepared, size: int, memory: Mapping[str, Memory]
) -> tuple[dict[str, Tensor], Tensor]:
    executor = prepared.executor
    if executor.vectorize:
        state = random_state()
        try:
            with vectorizable():
                return _vectorized(objective, prepared, size, memory)
        except PpgradError:
            raise
        except Exception as error:
            executor.fall_back(error)
            set_random_state(state)
    singles = [*_singly(objective, prepared, size, memory)]
    draws = {
        name: torch.stack([grads.get(name, torch.zeros_like(leaf)) for grads, _ in singles])
        for name, leaf in prepared.parameters.items()
    }
    return draws, torch.stack([loss for _, loss in singles])


def _of(gradients: Mapping[str, Tensor], name: str, leaf: Tensor, count: int) -> Tensor:
    """The gradients of a parameter; zero where no run had registered it so far."""
    known = gradients.get(name)
    return leaf.new_zeros(count, *leaf.shape) if known is None else known


def _singly(
    objective: Objective, prepared: Prepared, size: int, memory: Mapping[str, Memory]
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    for _ in range(size):
        estimate = objective.estimate(prepared.executor, memory=memory)
        yield ascent(estimate.surrogate, prepared.parameters), estimate.loss.detach()


def _vectorized(
    objective: Objective, prepared: Prepared, size: int, memory: Mapping[str, Memory]
) -> tuple[dict[str, Tensor], Tensor]:
    originals = list(prepared.parameters.values())
    lanes = [leaf.detach().expand(size, *leaf.shape).requires_grad_() for leaf in originals]

    def one(token: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        replacements = {id(old): new for old, new in zip(originals, parameters, strict=True)}
        estimate = objective.estimate(prepared.executor, token, replacements, memory)
        return estimate.surrogate, estimate.loss

    surrogates, losses = vectorized(one, *lanes, lanes=size)
    if not originals or not surrogates.requires_grad:
        zeros = {name: torch.zeros_like(lane) for name, lane in zip(prepared.parameters, lanes, strict=True)}
        return zeros, losses.detach()
    gradients = torch.autograd.grad(surrogates.sum(), [*lanes, *originals], allow_unused=True)
    if any(gradient is not None for gradient in gradients[len(lanes) :]):
        raise CannotVectorize("a parameter enters by a way that vmap cannot see, such as an autograd.Function")
    return reversed_signs(dict(zip(prepared.parameters, lanes, strict=True)), gradients[: len(lanes)]), losses.detach()


def default_chunk_size(prepared: Prepared) -> int:
    """As many replicates as keep graphs and gradients within a fixed amount of memory, whatever the machine has."""
    gradients = sum(leaf.nbytes for leaf in prepared.parameters.values())
    return max(1, _BUDGET // (prepared.graph_bytes + gradients))


@contextmanager
def weighed(program: Program) -> Iterator[Callable[[], int]]:
    """Inside, how many bytes the graphs made so far keep for their backward pass, beside what the program holds."""
    held = {tensor.untyped_storage()._cdata for tensor in tensors_held(program)}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in held:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(kept.values())


def _check(prepared: Prepared, draws: dict[str, Tensor], losses: Tensor) -> None:
    bad = [name for name, draw in draws.items() if not bool(torch.isfinite(draw).all())]
    if not bad and bool(torch.isfinite(losses).all()):
        return
    explain_nonfinite(prepared.executor)
    what = f"gradient of parameter '{bad[0]}'" if bad else "loss"
    what = f"Some replicates of the {what} are NaN or infinite. Keep the program's numbers finite."
    raise not_finite(prepared.executor, losses, what)
