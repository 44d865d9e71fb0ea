"""The log densities of sites that are alike in one call, and the tensors of one run with lane dimensions in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppgrad.core.distributions import over_event
from ppgrad.engine.running.site import Site

_PARAMETERS: dict[type, tuple[str, ...]] = {
    dist.Normal: ("loc", "scale"),
    dist.Categorical: ("logits",),
    dist.Bernoulli: ("logits",),
}
"""What the density of a distribution reads, by its class."""


def evaluate_together(sites: Sequence[Site]) -> None:
    """Evaluate the densities of sites whose distributions are alike in one call for each kind.

    The others evaluate theirs when they are asked for it. The gradient of one density with respect
    to the parameters of the other sites is then zero, and not None.
    """
    groups: dict[Any, list[Site]] = {}
    for site in sites:
        key = _kind(site)
        if key is not None:
            groups.setdefault(key, []).append(site)
    for group in groups.values():
        if len(group) > 1:
            for site, density in zip(group, _densities(group).unbind(), strict=True):
                site.density = density


def _kind(site: Site) -> Any:
    """What sites must share to be evaluated together; None for a site that must be evaluated alone."""
    estimator, fn = site.estimator, site.fn
    if type(fn) is dist.Independent:
        fn = fn.base_dist
    if type(fn) not in _PARAMETERS or estimator is None or site.is_evaluated or site.is_relaxed:
        return None
    if site.active is not None or estimator.needs.fixed_density:
        return None
    tensors = [site.value, *(getattr(fn, name) for name in _PARAMETERS[type(fn)])]
    looks = tuple((x.shape, x.dtype, x.device) for x in tensors)
    return type(site.fn), type(fn), site.fn.batch_shape, looks, estimator.facts.reparameterized


def _densities(sites: Sequence[Site]) -> Tensor:
    values = torch.stack([site.value for site in sites])
    detach = sites[0].estimator is not None and sites[0].estimator.facts.reparameterized
    return _log_prob([site.fn for site in sites], values.detach() if detach else values)


def _log_prob(fns: Sequence[Any], values: Tensor) -> Tensor:
    """The log density of each of ``values`` under its own of ``fns``."""
    first = fns[0]
    if isinstance(first, dist.Independent):
        return over_event(_log_prob([fn.base_dist for fn in fns], values), first.reinterpreted_batch_ndims)
    names = _PARAMETERS[type(first)]
    parameters = {name: torch.stack([getattr(fn, name) for fn in fns]) for name in names}
    if type(first) is dist.Categorical:  # its logits are normalized, and a new one would normalize them again
        return parameters["logits"].gather(-1, values.long().unsqueeze(-1)).squeeze(-1)
    log_prob: Tensor = type(first)(**parameters, validate_args=False).log_prob(values)
    return log_prob


def with_lanes(kept: Sequence[Mapping[str, Any]], together: bool) -> list[dict[str, Any]]:
    """The tensors of one run, with two lane dimensions of size one in front.

    Without ``together`` no tensors are stacked, so that the gradient of a cost or density reaches what it alone was
    computed from.
    """
    result: list[dict[str, Any]] = [dict(one) for one in kept]
    groups: dict[Any, list[tuple[dict[str, Any], str]]] = {}
    for one in result:
        for key, x in one.items():
            if not isinstance(x, Tensor):
                one[key] = tree_map(_lifted, x) if x else x
            elif together and (key in ("cost", "log_prob") or not x.requires_grad):
                groups.setdefault((x.shape, x.dtype, x.device, x.requires_grad), []).append((one, key))
            else:
                one[key] = _lifted(x)
    for places in groups.values():
        for (one, key), x in zip(places, _all_lifted([one[key] for one, key in places]), strict=True):
            one[key] = x
    return result


def _all_lifted(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [_lifted(tensors[0])] if len(tensors) == 1 else torch.stack(list(tensors)).unsqueeze(1).unsqueeze(1).unbind()


def _lifted(tensor: Tensor) -> Tensor:
    return tensor[None, None]
