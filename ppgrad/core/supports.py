"""Whether the support of a distribution moves with what is learned."""

from __future__ import annotations

from collections.abc import Iterator

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution, constraints

from ppgrad.core.distributions import leaves, without_mask


def moving_bound(fn: dist.TorchDistribution) -> bool:
    """Whether a finite bound of the support of ``fn`` moves with something that requires a gradient."""
    return any(_moves(bound) for bound in _bounds(without_mask(fn)))


def _bounds(fn: dist.TorchDistribution) -> Iterator[Tensor]:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    if type(fn) in (TransformedDistribution, dist.TransformedDistribution):
        for bound in _bounds(fn.base_dist):
            for transform in fn.transforms:
                bound = transform(bound)
            yield bound
        return
    try:
        support = fn.support
    except NotImplementedError:
        return
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    for side in ("lower_bound", "upper_bound"):
        limit = getattr(support, side, None)
        if limit is not None:
            yield limit if isinstance(limit, Tensor) else torch.tensor(float(limit))


def _moves(bound: Tensor) -> bool:
    origins = leaves(bound)
    if not origins or not bool(torch.isfinite(bound).any()):
        return False
    finite = torch.where(torch.isfinite(bound), bound, torch.zeros_like(bound))
    gradients = torch.autograd.grad(finite.sum(), origins, allow_unused=True, retain_graph=True)
    return any(g is not None and bool((g != 0).any()) for g in gradients)
