"""Gradients as compiled functions of parameters, arguments and memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ppgrad.core import InvalidInput, Memory, PpgradError, Unsupported
from ppgrad.engine.checking.explaining import explain_nonfinite, not_finite
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.compiling.compiled import Compiled, compiled
from ppgrad.engine.program.fingerprint import fingerprint, settings
from ppgrad.engine.program.program import Program, is_data
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.lanes import LaneTensors, vectorized
from ppgrad.engine.running.rewards import Rewards
from ppgrad.objectives._shared.estimate import Estimate

_REMEMBERED = 64
"""How many graphs an objective remembers."""

_MANY = 8
"""After how many graphs of one program its user is told."""

logger = logging.getLogger("ppgrad")

Memories = Mapping[str, Memory]


class Compilable(Protocol):
    """What compiling needs of an objective."""

    compile: bool | str
    graphs: dict[Any, Compiled | None]

    def estimate(
        self,
        executor: Executor,
        token: Tensor | float = 0.0,
        replacements: Mapping[int, Tensor] | None = None,
        memory: Memories | None = None,
    ) -> Estimate: ...


def check_compile(name: str, value: Any) -> None:
    """Raise if an objective's ``compile`` is neither a bool nor a backend's name."""
    if isinstance(value, bool) or (isinstance(value, str) and value in torch.compiler.list_backends(None)):
        return
    raise InvalidInput(
        f"{name}(compile={value!r}): write True, False or a name that torch.compiler.list_backends(None) has."
    )


@dataclass(frozen=True)
class Step:
    """One gradient from a compiled graph.

    Args:
        loss: minus the objective.
        leaves: the parameters of the program, and then of the critics, at which a gradient of the loss arrives.
        gradients: what arrives.
        memory: what the estimators remember from now on.
        rewards: what the executions have earned.
    """

    loss: Tensor
    leaves: Sequence[Tensor]
    gradients: Sequence[Tensor]
    memory: dict[str, Memory]
    rewards: Rewards

    def accumulate(self) -> None:
        """Add each gradient to its leaf's ``grad``."""
        if self.leaves:  # the engine calls the leaves' hooks; torch.autograd.backward would check shapes first
            run = torch.autograd.Variable._execution_engine.run_backward
            run(tuple(self.leaves), tuple(self.gradients), False, False, (), accumulate_grad=True)

    def differentiable_loss(self) -> Tensor:
        """A scalar of the loss, with the gradient for each leaf."""
        pairs = zip(self.leaves, self.gradients, strict=True)
        terms = [((leaf - leaf.detach()) * found).sum() for leaf, found in pairs]
        return self.loss + sum(terms) if terms else self.loss


def _trained(prepared: Prepared) -> list[Tensor]:
    """The parameters of the program, and of the critics that are trained beside it."""
    critics = [
        p for module in prepared.executor.setup.assignment.modules() for p in module.parameters() if p.requires_grad
    ]
    return list({id(leaf): leaf for leaf in (*prepared.parameters.values(), *critics)}.values())


def compiled_step(objective: Compilable, prepared: Prepared, memory: Memories) -> Step | None:
    """One gradient, with what estimators and critics learn from it; None on a machine without a compiler."""
    originals = _trained(prepared)
    counts: list[int] = []

    def step(inputs: Any) -> Any:
        leaves, arguments, memory = inputs
        parameters = [leaf.detach().requires_grad_() for leaf in leaves]
        replacements = {id(old): new for old, new in zip(originals, parameters, strict=True)}
        with _traceable(prepared.executor, arguments), LaneTensors(0.0, replacements):
            estimate = objective.estimate(prepared.executor, 0.0, replacements, memory)
            surrogate, learned = estimate.learned_from(memory)
            gradients = _gradients(surrogate, parameters)
        rewards = estimate.rewards(prepared.executor.particles)
        counts[:] = rewards[3:]
        loss = estimate.loss.detach()
        numbers = sum((gradient.sum() for gradient in gradients if gradient is not None), loss)
        return loss, gradients, learned, rewards[:3], torch.isfinite(numbers)

    inputs = (originals, _tensors(prepared.executor.program), _plain(memory))
    computed = _computed(objective, prepared, ("step",), step, inputs, counts)
    if computed is None:
        return None
    (loss, gradients, learned, sums, is_finite), about = computed
    if not is_finite:
        explain_nonfinite(prepared.executor)
        what = "The loss or a gradient of the compiled program is NaN or infinite. Keep its numbers finite."
        raise not_finite(prepared.executor, loss, what)
    found = [(leaf, gradient) for leaf, gradient in zip(originals, gradients, strict=True) if gradient is not None]
    leaves, arrived = [leaf for leaf, _ in found], [gradient for _, gradient in found]
    return Step(loss, leaves, arrived, learned, Rewards(*sums, *about))


def compiled_replicates(
    objective: Compilable, prepared: Prepared, size: int, memory: Memories
) -> tuple[list[Tensor | None], Tensor] | None:
    """``size`` gradients of the loss for each parameter, and the losses; None on a machine without a compiler."""
    originals = list(prepared.parameters.values())

    def replicates(inputs: Any) -> Any:
        leaves, arguments, memory = inputs
        lanes = [leaf.expand(size, *leaf.shape).detach().requires_grad_() for leaf in leaves]

        def one(token: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
            replacements = {id(old): new for old, new in zip(originals, parameters, strict=True)}
            estimate = objective.estimate(prepared.executor, token, replacements, memory)
            return estimate.surrogate, estimate.loss

        with _traceable(prepared.executor, arguments):
            surrogates, losses = vectorized(one, *lanes, lanes=size)
            return _gradients(surrogates.sum(), lanes), losses.detach()

    inputs = (originals, _tensors(prepared.executor.program), _plain(memory))
    computed = _computed(objective, prepared, ("replicates", size), replicates, inputs)
    return None if computed is None else computed[0]


def _computed(
    objective: Compilable, prepared: Prepared, what: Any, function: Any, inputs: Any, about: Any = ()
) -> tuple[Any, Sequence[Any]] | None:
    """``function(inputs)`` from its graph, and what tracing it left in ``about``; None without a compiler.

    It is traced and compiled where this program, its shapes and settings are new.
    """
    originals, arguments, memory = inputs
    remembered = [(site, name, value) for site, values in memory.items() for name, value in values.items()]
    leaves = [*originals, *arguments, *(value for _, _, value in remembered)]
    layout = len(originals), *((site, name) for site, name, _ in remembered)
    shapes = tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
    backend = "inductor" if objective.compile is True else str(objective.compile)
    program = prepared.executor.program
    same = (what, backend, program.model, program.guide)
    names = tuple(prepared.parameters)
    key = (*same, prepared.choices, settings(objective), layout, shapes, names, fingerprint(program))
    if key not in objective.graphs:
        name = getattr(program.model, "__name__", type(program.model).__name__)
        assert all(a is b for a, b in zip(tree_leaves(inputs), leaves, strict=True))
        graph = compiled(function, inputs, f"{what[0]} of {name}", backend)
        if graph is not None:
            graph.about = list(about)
        while len(objective.graphs) >= _REMEMBERED:
            objective.graphs.pop(next(iter(objective.graphs)))
        objective.graphs[key] = graph
        if sum(other[: len(same)] == same for other in objective.graphs) == _MANY:
            logger.warning(
                "%s has been compiled %d times: a number or a shape that it reads goes on changing. Pass a number that "
                "changes as a tensor, or write compile=False.",
                name,
                _MANY,
            )
    known = objective.graphs[key]
    return None if known is None else (known(leaves), known.about)


def _gradients(surrogate: Tensor, parameters: list[Tensor]) -> list[Tensor | None]:
    if not parameters or not surrogate.requires_grad:
        return [None] * len(parameters)
    return list(torch.autograd.grad(surrogate, parameters, allow_unused=True))


def _plain(memory: Memories) -> dict[str, dict[str, Tensor]]:
    return {site: dict(values) for site, values in sorted(memory.items()) if values}


def _tensors(program: Program) -> list[Tensor]:
    """The tensors among a program's arguments.

    Raises:
        InvalidInput: an argument is a NumPy array, which compiling would make a constant.
    """
    if any(isinstance(leaf, np.ndarray) for leaf in program.leaves):
        raise InvalidInput(
            "compile=True makes a constant of an argument that is a NumPy array. Pass torch.as_tensor(…)."
        )
    return [leaf for leaf in program.leaves if is_data(leaf)]


class _Latest(Messenger):
    """Knows the name of the site that was reached last."""

    name = ""

    def _pyro_sample(self, message: Any) -> None:
        self.name = message["name"]


@contextmanager
def _traceable(executor: Executor, arguments: list[Tensor]) -> Iterator[None]:
    """The program takes ``arguments`` in place of its tensors; what it does may not depend on values.

    Raises:
        Unsupported: it does.
    """
    program, vectorize = executor.program, executor.vectorize
    if executor.known.own_state is not None:
        raise Unsupported(
            f"The program cannot be compiled: {executor.known.own_state}, and compiling would make a constant of it. "
            "Draw with torch, pass what changes as a tensor among the arguments, or write compile=False."
        )
    remaining = iter(arguments)
    executor.program = program.with_leaves([next(remaining) if is_data(leaf) else leaf for leaf in program.leaves])
    latest = _Latest()
    try:
        with latest, torch.enable_grad():
            yield
    except PpgradError:
        raise
    except Exception as error:
        where = f"after site '{latest.name}'" if latest.name else "before its first site"
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        raise Unsupported(
            f"The program cannot be compiled: what it does {where} depends on a value, or leaves torch ({reason}). "
            "Choose by torch.where, or write compile=False."
        ) from error
    finally:
        executor.program, executor.vectorize = program, vectorize
