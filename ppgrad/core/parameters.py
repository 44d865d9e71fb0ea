"""The parameters of a distribution as unconstrained numbers, and the distribution rebuilt from others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints, transform_to

from ppgrad.core.distributions import detached, distribution_name, is_rounded, without_mask

Parameters = Mapping[str, tuple[Tensor, constraints.Constraint]]

# Of several names for one thing, the one to move.
_CHOSEN = {
    "probs": "logits", "gate": "gate_logits", "covariance_matrix": "scale_tril", "precision_matrix": "scale_tril",
}  # fmt: skip


def parameters(fn: TorchDistribution) -> Parameters:
    """The parameters that can be moved, by name, each with its constraint.

    Each has the shape of the elements of ``fn``, batch + ``to_event``, and then its own. Logits are
    given rather than probabilities, the Cholesky factor rather than a covariance.
    """
    base, elements = _base(fn), element_batch(fn)
    found = {}
    for name, constraint in _constraints(base).items():
        if _CHOSEN.get(name) in _constraints(base) or constraint.is_discrete:
            continue
        value = torch.as_tensor(getattr(base, name))
        own = value.shape[value.dim() - constraint.event_dim :]
        found[name] = (value.expand((*elements, *own)), constraint)
    return found


def unconstrained(fn: TorchDistribution) -> Tensor:
    """All parameters of each element in a row, on the real line, with their graph: elements + (numbers,)."""
    rows = []
    for value, constraint in parameters(fn).values():
        free = transform_to(constraint).inv(value)
        rows.append(_flat(free, constraint))
    return torch.cat(rows, -1)


def rebuilt(fn: TorchDistribution, numbers: Tensor) -> TorchDistribution:
    """The distribution of the elements of ``fn`` with other parameters, as `unconstrained` gives them.

    Its batch is that of the elements: it draws what ``fn`` draws, without ``to_event`` or masks.
    """
    base, given, start = _base(fn), {}, 0
    for name, (value, constraint) in parameters(fn).items():
        free = transform_to(constraint).inv(value)
        size = _flat(free, constraint).shape[-1]
        given[name] = transform_to(constraint)(_unflat(numbers[..., start : start + size], free, constraint))
        start += size
    return type(base)(**given, **_constants(base))


def not_rebuildable(fn: TorchDistribution) -> str | None:
    """Why ``fn`` cannot be rebuilt from other parameters, or None if it can."""
    name, base = distribution_name(fn), _base(fn)
    if is_rounded(fn):
        return f"the density of {name} is that of the value before it was rounded"
    try:
        if not parameters(fn):
            return f"{name} has no named parameters to move"
        numbers = unconstrained(fn)
    except NotImplementedError:
        return f"the parameters of {name} constrain each other"
    except (AttributeError, ValueError, RuntimeError):
        return f"{name} does not show its parameters"
    for constant, held in _constants(base).items():
        learned = held.requires_grad if isinstance(held, Tensor) else isinstance(held, Distribution)
        if learned:
            return f"{name} is built from more than numbers that can be moved, '{constant}'"
    if not bool(torch.isfinite(numbers).all()):
        return f"a parameter of {name} lies on the border of what it can be"
    try:
        with torch.no_grad():
            other = rebuilt(fn, numbers)
            value = fn.sample()
            expected = _expanded(base, element_batch(fn)).log_prob(value)
            if not bool(torch.isfinite(expected).all()):
                return f"the density of {name} is infinite at its own values"
            same = torch.allclose(other.log_prob(value), expected, rtol=1e-3, atol=1e-3)
    except (AttributeError, KeyError, NotImplementedError, ValueError, RuntimeError, TypeError):
        same = False
    return None if same else f"{name} cannot be rebuilt from its parameters"


def element_batch(fn: TorchDistribution) -> torch.Size:
    """The shape of the elements: batch + ``to_event``."""
    shape, base = fn.shape(), _base(fn)
    return torch.Size(shape[: len(shape) - len(base.event_shape)])


def _base(fn: TorchDistribution) -> TorchDistribution:
    fn = without_mask(fn)
    while isinstance(fn, torch.distributions.Independent | dist.torch_distribution.ExpandedDistribution):
        fn = without_mask(fn.base_dist)
    return fn


def _expanded(base: TorchDistribution, batch: torch.Size) -> TorchDistribution:
    return base if base.batch_shape == batch else base.expand(batch)


def _constraints(base: TorchDistribution) -> Mapping[str, constraints.Constraint]:
    """Bounds that are parameters themselves, as those of Uniform are, pass no gradient on."""
    if not isinstance(type(base).arg_constraints, Mapping):
        base = detached(base)
    found: Any = base.arg_constraints
    return found if isinstance(found, Mapping) else {}


def _constants(base: TorchDistribution) -> dict[str, Any]:
    """What else the class is called with, as far as the instance remembers it."""
    moved = set(parameters(base)) | set(_CHOSEN)
    names = [
        name for name in inspect.signature(type(base).__init__).parameters if name not in ("self", "validate_args")
    ]
    return {name: getattr(base, name) for name in names if name not in moved and hasattr(base, name)}


def _flat(free: Tensor, constraint: constraints.Constraint) -> Tensor:
    if constraint is constraints.lower_cholesky:
        rows, columns = torch.tril_indices(free.shape[-1], free.shape[-1], device=free.device)
        return free[..., rows, columns]
    return free.reshape(*free.shape[: free.dim() - _event_dim(free, constraint)], -1)


def _unflat(numbers: Tensor, like: Tensor, constraint: constraints.Constraint) -> Tensor:
    if constraint is constraints.lower_cholesky:
        size = like.shape[-1]
        rows, columns = torch.tril_indices(size, size, device=numbers.device)
        place = torch.zeros(size, size, dtype=torch.long, device=numbers.device)
        place[rows, columns] = torch.arange(len(rows), device=numbers.device)
        full = numbers.index_select(-1, place.reshape(-1)).reshape(*numbers.shape[:-1], size, size)
        return full.tril()
    own = like.shape[like.dim() - _event_dim(like, constraint) :]
    return numbers.reshape((*numbers.shape[:-1], *own))


def _event_dim(free: Tensor, constraint: constraints.Constraint) -> int:
    """How many dimensions one parameter of one element has, on the real line."""
    return int(transform_to(constraint).domain.event_dim or constraint.event_dim)
