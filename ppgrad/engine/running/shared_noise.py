"""Noise that the particles of a site share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draws
from ppgrad.core.distributions import tensor_of


class NoiseSite(NamedTuple):
    """A site that is drawn from noise that particles share: how they do, and what its noise looks like."""

    draws: Draws
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def noise_site(draws: Draws, fn: TorchDistribution) -> NoiseSite:
    """The site of ``fn``; noise in less than single precision would be too coarse."""
    like = tensor_of(fn)
    return NoiseSite(draws, fn.shape(), torch.promote_types(like.dtype, torch.float32), like.device)


class SubsampledPlate(NamedTuple):
    """A plate of which some elements are drawn: importance samples of one bound take the same ones."""

    size: int
    subsample_size: int
    device: torch.device | None


def shared_noise(
    noises: Mapping[str, NoiseSite | SubsampledPlate], particles: int, num_importance: int
) -> dict[str, Tensor]:
    """Uniform noise for each site, ``(particles, *shape)``, and the elements for each plate.

    Sites with the same draws share one sequence; every ``num_importance`` particles share a plate's elements.
    """
    found: dict[str, Tensor] = {}
    for name, plate in noises.items():
        if isinstance(plate, SubsampledPlate):
            bounds = range(particles // num_importance)
            chosen = [torch.randperm(plate.size, device=plate.device)[: plate.subsample_size] for _ in bounds]
            found[name] = torch.stack(chosen).repeat_interleave(num_importance, 0)
    sites = {name: site for name, site in noises.items() if isinstance(site, NoiseSite)}
    for kind in dict.fromkeys(site.draws for site in sites.values()):
        alike = {name: site for name, site in sites.items() if site.draws == kind}
        sizes = [site.shape.numel() for site in alike.values()]
        dtype = reduce(torch.promote_types, [site.dtype for site in alike.values()])
        device = next(iter(alike.values())).device
        uniforms = kind.uniforms(particles, sum(sizes), dtype=dtype, device=device)
        for (name, site), part in zip(alike.items(), torch.split(uniforms, sizes, dim=1), strict=True):
            found[name] = part.reshape(-1, *site.shape).to(site.device, site.dtype)
    return found
