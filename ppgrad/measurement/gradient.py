"""One gradient estimate, as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import InvalidInput, Memory, NonFinite
from ppgrad.core.arguments import checked_seed
from ppgrad.core.distributions import leaves
from ppgrad.core.errors import second_pass_explained
from ppgrad.core.generators import forked, random_state
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.program.parameters import buffers_unchanged, check_named, param_store_unchanged
from ppgrad.engine.program.program import Program, program_of
from ppgrad.measurement.nonfinite import gradient_explained, is_finite
from ppgrad.objectives import Objective


@contextmanager
def pure(seed: int | None, program: Program) -> Iterator[None]:
    """Param store, buffers and, under a seed, the global generators are left as they were found."""
    with param_store_unchanged(), buffers_unchanged(program), forked(checked_seed(seed)), torch.enable_grad():
        yield


def gradient(
    objective: Objective,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
) -> dict[str, Tensor]:
    """One estimate of the objective's gradient, in the direction of ascent.

    Pure: no parameter's ``grad``, no baseline's memory and no param store changes, nor, when a seed
    is given, any global random state. An estimator with gates (`InverseVariance`, `OptimalConstant`) therefore
    calibrates in every call, from 256 held-out runs, unless the objective has been trained and remembers them: `fit`
    and Pyro's loop calibrate once in 100 gradients and keep what they found.

    Args:
        objective: what is wanted, and how its gradient is estimated.
        model: an ordinary Pyro model.
        guide: its guide, where the objective has one.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        seed: makes the estimate a function of its arguments.

    Returns:
        ``{parameter name: gradient}``, each of its parameter's shape; for a constrained parameter
        with respect to the unconstrained value, which is what Pyro's optimizers move. Zero where no
        gradient arrives.

    Raises:
        InvalidInput: ``objective`` is none.
        InvalidProgram: the program is not one that the objective or Pyro accepts.
        InvalidAssignment: the choice of estimators does not fit the sites, or names none.
        Unsupported: an estimator cannot serve a site that it was chosen for.
        NonFinite: a value, a density, a cost or the gradient is NaN or infinite; names the site and the parameter.

    >>> import pyro, torch, pyro.distributions as dist, ppgrad
    >>> def program():
    ...     loc = pyro.param("loc", torch.tensor(1.0))
    ...     x = ppgrad.policy("x", dist.Normal(loc, 1.0))
    ...     ppgrad.cost("f", x**2)
    >>> pathwise = ppgrad.gradient(ppgrad.ExpectedReturn(ppgrad.Pathwise()), program, seed=0)
    >>> list(pathwise)
    ['loc']
    """
    check_objective(objective)
    with pure(seed, program_of(model, guide, args, kwargs)):
        prepared = objective.prepare(model, guide, args, kwargs)
        return one_gradient(objective, prepared, objective.recalled(prepared))


def one_gradient(objective: Objective, prepared: Prepared, memory: Mapping[str, Memory]) -> dict[str, Tensor]:
    """One estimate of the gradient of a prepared program, in the direction of ascent."""
    step = objective.compiled_step(prepared, memory)
    if step is not None:
        return reversed_signs(prepared.parameters, step.gradients[: len(prepared.parameters)])
    generators = random_state()
    surrogate = objective.estimate(prepared.executor, memory=memory).surrogate
    check_gradients_named(objective, prepared, surrogate)
    found = ascent(surrogate, prepared.parameters)
    if not all(map(is_finite, found.values())):
        raise NonFinite(gradient_explained(objective, prepared, prepared.parameters, found, generators, memory))
    return found


def check_objective(objective: Any) -> None:
    """Raise if ``objective`` is no objective's instance."""
    if not isinstance(objective, Objective):
        raise InvalidInput(f"An objective is needed, such as ExpectedReturn(Pathwise()), not {objective!r}.")


def check_gradients_named(objective: Objective, prepared: Prepared, surrogate: Tensor) -> None:
    """Raise if a gradient flows into a tensor that has no name; critics' parameters are not the program's."""
    critics = {id(p) for module in prepared.executor.setup.assignment.modules() for p in module.parameters()}
    check_named(prepared.parameters, leaves(surrogate), critics)


def ascent(surrogate: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Minus the surrogate's gradient for each parameter, zero where none arrives."""
    tensors = list(parameters.values())
    if not tensors or not surrogate.requires_grad:
        return {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
    with second_pass_explained():
        return reversed_signs(parameters, torch.autograd.grad(surrogate, tensors, allow_unused=True))


def reversed_signs(parameters: Mapping[str, Tensor], gradients: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """The gradients of a loss as those of the objective, by name; zero where there is none."""
    return {
        name: torch.zeros_like(tensor) if gradient is None else -gradient.to_dense()
        for (name, tensor), gradient in zip(parameters.items(), gradients, strict=True)
    }
