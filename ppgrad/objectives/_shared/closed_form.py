"""Kullback-Leibler divergences in closed form, of the sites that the guide draws and the model replays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from torch.overrides import TorchFunctionMode

from ppgrad.core.distributions import without_mask
from ppgrad.engine.running.site import Site


def divergences(sites: Sequence[Site]) -> dict[str, Tensor]:
    """KL(q(z | …) ‖ p(z | …)) of each site that has one in closed form, by name: the batch shape, neither scaled.

    E[log q(z) − log p(z)] is the expectation of that divergence where nothing that p(z | …) is computed from was
    drawn from z. So a site has none if the model has replayed, before it, a site that the guide draws after it. It
    has none either where the scales or the masks of model and guide are not known to be equal.
    """
    found = {}
    for drawn, replayed in _replayed_in_order(sites):
        if drawn.is_random and drawn.is_weighted_like(replayed):
            divergence = _divergence(drawn.fn, replayed.fn)
            if divergence is not None:
                found[drawn.name] = divergence
    return found


def _replayed_in_order(sites: Sequence[Site]) -> Iterator[tuple[Site, Site]]:
    """The guide's and the model's site of each name, without those that the model replays after a later one."""
    guided = {site.name: (i, site) for i, site in enumerate(sites) if site.in_guide}
    latest = -1
    for site in sites:
        if site.kind == "replayed":
            place, drawn = guided[site.name]
            if place > latest:
                yield drawn, site
            latest = max(latest, place)


def _divergence(guide: Any, model: Any) -> Tensor | None:
    if guide.batch_shape != model.batch_shape or guide.event_shape != model.event_shape or not _same_mask(guide, model):
        return None
    try:
        with _MasksFilled():
            divergence = kl_divergence(guide, model)
    except NotImplementedError:
        return None
    return divergence if isinstance(divergence, Tensor) else None  # Pyro's is a number where all is masked


def _same_mask(one: Distribution, other: Distribution) -> bool:
    if isinstance(one, MaskedDistribution) and isinstance(other, MaskedDistribution):
        return one._mask is other._mask and _same_mask(one.base_dist, other.base_dist)
    return without_mask(one) is one and without_mask(other) is other


class _MasksFilled(TorchFunctionMode):
    """Turns ``t[mask] = number`` into ``masked_fill_``, which ``torch.func.vmap`` can carry."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__setitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            return args[0].masked_fill_(args[1], args[2])
        return func(*args, **(kwargs or {}))
