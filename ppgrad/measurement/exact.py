"""The exact gradient of a small program: enumeration, quadrature, and their product."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution

from ppgrad.core import CannotBeExact, CoupledSlices, Estimator, Facts, InvalidInput, SiteInfo, SumsOver
from ppgrad.core.distributions import distribution_name, tensor_of, without_mask
from ppgrad.engine.checking.first_run import Prepared, program_elements
from ppgrad.engine.checking.ordinary_run import traces
from ppgrad.engine.program.program import program_of
from ppgrad.engine.running.site import site_info
from ppgrad.estimators import Enumerate
from ppgrad.measurement.gradient import ascent, check_gradients_named, check_objective, pure
from ppgrad.objectives import Objective

_NODES = ((64, 96), (32, 48), (16, 24), (10, 14))
"""Pairs of quadrature rules to compare, from the finest that fits into the branches."""


_LOOPED = 1000
"""How many branches of a program that vmap cannot carry are worth a loop."""

_ELEMENTS = 4_000_000
"""How many numbers all branches of a program may hold at once."""


def exact_gradient(
    objective: Objective,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """The exact gradient of the objective, in the direction of ascent.

    Sites with a finite support are enumerated, Gaussian ones (and transforms of them) integrated by
    Gauss–Hermite quadrature of f(x) ∇ log p(x), so that jumps of f count. Two rules of different
    size must agree, to 2e-4 of the largest component in single precision.

    Args:
        objective: what is wanted; its estimators do not matter.
        model, guide, args, kwargs: as for `gradient`.

    Returns:
        ``{parameter name: gradient}``, each of its parameter's shape.

    Raises:
        CannotBeExact: a site of another kind, too many branches, a subsampled plate, randomness
            outside of the program's sites, or a quadrature that has not converged.

    Source: Abramowitz & Stegun (1964), eq. 25.4.46.
    """
    check_objective(objective)
    program_of(model, guide, args, kwargs)
    if objective.couples_lanes:
        raise CannotBeExact(f"{type(objective).__name__} is no sum over costs, which is what can be integrated here.")
    reason = ""
    for coarse, fine in _NODES:
        try:
            first, gaussian = _integrate(objective, model, guide, args, kwargs, coarse, seed=1)
            second, _ = _integrate(objective, model, guide, args, kwargs, fine, seed=2)
        except InvalidInput as error:
            reason = str(error)
            continue
        _check_agreement(first, second, f"rules of {coarse} and {fine} nodes" if gaussian else "two runs")
        return second
    raise CannotBeExact(f"The program is too large for an exact gradient. {reason}")


def _integrate(
    objective: Objective, model: Any, guide: Any, args: Any, kwargs: Any, nodes: int, seed: int
) -> tuple[dict[str, Tensor], bool]:
    gaussian = False

    def choose(message: Mapping[str, Any]) -> Estimator:
        nonlocal gaussian
        info = site_info(message, 1)
        if Enumerate().refuses(info) is None:
            return Enumerate()
        rule = GaussHermite(nodes)
        reason = rule.refuses(info)
        if reason is not None:
            raise CannotBeExact(f"Site '{info.name}' has no exact expectation here: {reason}.")
        gaussian = True
        return rule

    exact = objective.with_choice(choose)
    with pure(seed, program_of(model, guide, args, kwargs)):
        prepared = prepared_to_sum(exact, model, guide, args, kwargs)
        for trace in traces(prepared.executor):
            _check_no_subsampling(trace)
        surrogate = exact.estimate(prepared.executor).surrogate
        check_gradients_named(exact, prepared, surrogate)
        return ascent(surrogate, prepared.parameters), gaussian


def prepared_to_sum(
    exact: Objective, model: Any, guide: Any, args: Any, kwargs: Any, max_looped: int = _LOOPED
) -> Prepared:
    """A program all of whose branches are to run, at most ``max_looped`` of them in a loop.

    Raises:
        InvalidInput: they would not fit into memory.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoupledSlices)  # the person's own objective says so
        prepared = exact.prepare(model, guide, args, kwargs)
    _check_size(prepared)
    prepared.executor.max_looped = max_looped
    return prepared


def _check_size(prepared: Prepared) -> None:
    """Raise if all branches at once would not fit into a few gigabytes."""
    elements = prepared.executor.branches * program_elements(prepared)
    if elements > _ELEMENTS:
        raise InvalidInput(f"Its {prepared.executor.branches} branches hold {elements:.1g} numbers.")


def _check_no_subsampling(trace: Any) -> None:
    for name, node in () if trace is None else trace.nodes.items():
        if type(node.get("fn")).__name__ == "_Subsample" and len(node["value"]) < node["fn"].size:
            raise CannotBeExact(f"Plate '{name}' is subsampled at random. Use the full plate for an exact gradient.")


def _check_agreement(first: dict[str, Tensor], second: dict[str, Tensor], what: str) -> None:
    largest = max((float(g.abs().max()) for g in second.values() if g.numel()), default=0.0)
    for name, gradient in second.items():
        tolerance = 2e-4 if gradient.dtype == torch.float32 else 1e-7
        difference = float((gradient - first[name]).abs().max()) if gradient.numel() else 0.0
        if not difference <= tolerance * max(largest, 1e-2):
            raise CannotBeExact(
                f"The gradient of '{name}' differs by {difference:.2g} between {what}: "
                "the integrand jumps or is too rough, or the program draws random numbers outside of its sites."
            )


@dataclass(frozen=True)
class GaussHermite(Estimator, SumsOver):
    """Σ_i w_i f(x_i) ∇ log p(x_i) at the nodes x_i of a Gauss–Hermite rule.

    A product rule over the elements of an event: ``nodes`` to the power of their number. Serves
    Normal, MultivariateNormal, and transforms of them. Internal: the reference that the
    estimators are measured against.
    """

    facts: ClassVar[Facts] = Facts(source="Abramowitz & Stegun (1964), eq. 25.4.46")

    nodes: int = 64

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        fn = _base(site.fn)
        if not isinstance(fn, torch.distributions.Normal | torch.distributions.MultivariateNormal):
            return f"{distribution_name(site.fn)} is neither finite nor Gaussian"
        if site.fn.event_shape.numel() > 4:
            return f"an event of {site.fn.event_shape.numel()} Gaussian elements is too large for quadrature"
        return None

    def grid(self, fn: dist.TorchDistribution) -> Tensor:
        points, _ = _rule(self.nodes)
        axis = _axis(points, fn)
        product = torch.cartesian_prod(*[axis] * fn.event_shape.numel())
        return product.reshape(-1, *fn.event_shape)

    def grid_value(self, fn: dist.TorchDistribution, points: Tensor) -> Tensor:
        with torch.no_grad():
            return _place(without_mask(fn), points)

    def grid_log_weight(self, fn: dist.TorchDistribution, value: Tensor, index: Tensor) -> Tensor:
        _, weights = _rule(self.nodes)
        axis = _axis(np.log(weights / weights.sum()), fn)
        product = torch.cartesian_prod(*[axis] * fn.event_shape.numel())
        log_weights = product.reshape(len(axis) ** fn.event_shape.numel(), -1).sum(-1)
        density = without_mask(fn).log_prob(value)
        chosen = log_weights.index_select(0, index.reshape(-1)).reshape(index.shape)
        return chosen + density - density.detach()


def _axis(numbers: Any, fn: dist.TorchDistribution) -> Tensor:
    like = tensor_of(fn)
    return torch.as_tensor(numbers, dtype=like.dtype, device=like.device)


@lru_cache
def _rule(nodes: int) -> tuple[Any, Any]:
    return np.polynomial.hermite_e.hermegauss(nodes)


def _base(fn: Any) -> Any:
    fn = without_mask(fn)
    while isinstance(fn, Independent | TransformedDistribution):
        fn = fn.base_dist
    return fn


def _place(fn: Any, points: Tensor) -> Tensor:
    if isinstance(fn, Independent):
        return _place(fn.base_dist, points)
    if isinstance(fn, TransformedDistribution):
        value = _place(fn.base_dist, points)
        for transform in fn.transforms:
            value = transform(value)
        return value
    if isinstance(fn, torch.distributions.MultivariateNormal):
        return fn.loc + (fn.scale_tril @ points.unsqueeze(-1)).squeeze(-1)
    return fn.loc + fn.scale * points
