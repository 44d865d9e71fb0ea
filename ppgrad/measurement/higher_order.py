"""Second derivatives of an objective, from one estimate of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import InvalidInput, Unsupported
from ppgrad.core.distributions import leaves
from ppgrad.engine.checking.explaining import check_record_finite, nonfinite_explained
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.checking.ordinary_run import ordinary_run
from ppgrad.engine.program.program import program_of
from ppgrad.measurement.gradient import check_gradients_named, check_objective, pure
from ppgrad.objectives import Objective


def hessian(
    objective: Objective,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
) -> dict[str, dict[str, Tensor]]:
    """One estimate of the objective's Hessian ∂²J / ∂θ_i ∂θ_j, symmetric and unbiased.

    Sites are served by the score function, with any baseline, pathwise or by enumeration, mixed
    freely. A pathwise site needs a sample that can be differentiated twice, and costs whose slope
    does not jump. Pure, as `gradient` is.

    Args:
        objective, model, guide, args, kwargs, seed: as for `gradient`.

    Returns:
        ``{parameter: {parameter: second derivatives}}``, each of the two parameters' shapes, one after
        the other; for constrained parameters with respect to the unconstrained values.

    Raises:
        Unsupported: an estimator of first derivatives only, or a sample that has no second derivative.

    Source: Foerster et al. (2018), DiCE, eq. 6; Mao et al. (2019), A baseline for any order gradient
    estimation, eq. 6.

    >>> import pyro, torch, pyro.distributions as dist, ppgrad
    >>> def program():
    ...     loc = pyro.param("loc", torch.tensor(1.0))
    ...     x = ppgrad.policy("x", dist.Normal(loc, 1.0))
    ...     ppgrad.cost("f", x**2)
    >>> ppgrad.hessian(ppgrad.ExpectedReturn(ppgrad.Pathwise()), program, seed=0)
    {'loc': {'loc': tensor(-2.)}}
    """
    with _differentiated(objective, model, guide, args, kwargs, seed) as (prepared, gradients):
        tensors = list(prepared.parameters.values())
        result: dict[str, dict[str, Tensor]] = {}
        for name, gradient in zip(prepared.parameters, gradients, strict=True):
            rows = [_derivative(element, tensors) for element in gradient.reshape(-1)]
            result[name] = {
                other: torch.stack([row[i] for row in rows]).reshape(gradient.shape + tensor.shape)
                for i, (other, tensor) in enumerate(prepared.parameters.items())
            }
        return result


def hvp(
    objective: Objective,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    vector: Mapping[str, Tensor] | None = None,
    *,
    seed: int | None = None,
) -> dict[str, Tensor]:
    """One estimate of the objective's Hessian times a vector, without the Hessian.

    Args:
        objective, model, guide, args, kwargs, seed: as for `hessian`, whose estimate under the same
            seed this one multiplies.
        vector: ``{parameter: tensor}`` of the parameters' shapes, one for each.

    Returns:
        ``{parameter: tensor}`` of the parameters' shapes.

    Raises:
        InvalidInput: the vector does not fit the parameters.
        Unsupported: as for `hessian`.

    Source: Pearlmutter (1994), Fast exact multiplication by the Hessian, section 2.
    """
    with _differentiated(objective, model, guide, args, kwargs, seed) as (prepared, gradients):
        direction = _checked_vector(vector, prepared.parameters)
        terms = [(gradient * along).sum() for gradient, along in zip(gradients, direction, strict=True)]
        product = torch.stack(terms).sum()
        return dict(zip(prepared.parameters, _derivative(product, list(prepared.parameters.values())), strict=True))


@contextmanager
def _differentiated(
    objective: Objective, model: Any, guide: Any, args: Any, kwargs: Any, seed: int | None
) -> Iterator[tuple[Prepared, list[Tensor]]]:
    """The program's parameters and the gradient of an estimate of the objective, with its graph."""
    check_objective(objective)
    if objective.wanted is not type(objective):
        name, instead = type(objective).__name__, objective.wanted.__name__
        raise Unsupported(f"{name} estimates first derivatives only. Write {instead}(…), whose gradient it estimates.")
    whole = copy.copy(objective)
    whole.all_orders, whole._prepared = True, []
    with pure(seed, program_of(model, guide, args, kwargs)):
        prepared = whole.prepare(model, guide, args, kwargs)
        memories = whole.recalled(prepared)
        with nonfinite_explained(prepared.executor):
            records = prepared.executor.execute(memory=memories)
        check_record_finite(prepared.executor, records)
        surrogate = whole.surrogate_of_any_order(records, memories)
        check_gradients_named(whole, prepared, surrogate)
        tensors = list(prepared.parameters.values())
        with _explained(prepared):
            yield prepared, _derivative(-surrogate, tensors, create_graph=True)


def _derivative(value: Tensor, tensors: list[Tensor], create_graph: bool = False) -> list[Tensor]:
    if not tensors or not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad(value, tensors, create_graph=create_graph, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


@contextmanager
def _explained(prepared: Prepared) -> Iterator[None]:
    """Name the site whose sample has no second derivative."""
    try:
        yield
    except RuntimeError as error:
        for site in ordinary_run(prepared.executor):
            if site.carries_gradient and site.is_random and not _twice_differentiable(site.fn):
                raise Unsupported(
                    f"Pathwise cannot serve site '{site.name}' here: the sample of {type(site.fn).__name__} has no "
                    f"second derivative.\nChoose ScoreFunction() for it: sites={{'{site.name}': ScoreFunction()}}."
                ) from error
        raise


def _twice_differentiable(fn: Any) -> bool:
    value = fn.rsample()
    origins = [value] if not value.requires_grad else leaves(value)
    try:
        first = _derivative(value.sum(), origins, create_graph=True)
        _derivative(torch.stack([g.sum() for g in first]).sum(), origins)
    except RuntimeError:
        return False
    return True


def _checked_vector(vector: Any, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """The vector's tensors in the parameters' order."""
    if not isinstance(vector, Mapping):
        raise InvalidInput(f"hvp(vector={vector!r}): write {{parameter: tensor}}, for {', '.join(parameters)}.")
    for name in vector:
        if name not in parameters:
            there = ", ".join(parameters) or "none"
            raise InvalidInput(f"hvp's vector names '{name}', and the parameters are {there}.")
    for name, parameter in parameters.items():
        if name not in vector:
            raise InvalidInput(f"hvp's vector lacks parameter '{name}'. Write zeros where it is to be zero.")
        shape = torch.as_tensor(vector[name]).shape
        if shape != parameter.shape:
            raise InvalidInput(
                f"hvp's vector has shape {tuple(shape)} for '{name}', and the parameter {tuple(parameter.shape)}."
            )
    return [torch.as_tensor(vector[name]) for name in parameters]
