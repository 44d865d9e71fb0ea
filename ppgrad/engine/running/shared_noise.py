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


def shared_noise(noises: Mapping[str, NoiseSite], particles: int) -> dict[str, Tensor]:
    """Uniform noise for each site, ``(particles, *shape)``; sites with the same draws share one sequence."""
    found: dict[str, Tensor] = {}
    for kind in dict.fromkeys(site.draws for site in noises.values()):
        alike = {name: site for name, site in noises.items() if site.draws == kind}
        sizes = [site.shape.numel() for site in alike.values()]
        dtype = reduce(torch.promote_types, [site.dtype for site in alike.values()])
        device = next(iter(alike.values())).device
        uniforms = kind.uniforms(particles, sum(sizes), dtype=dtype, device=device)
        for (name, site), part in zip(alike.items(), torch.split(uniforms, sizes, dim=1), strict=True):
            found[name] = part.reshape(-1, *site.shape).to(site.device, site.dtype)
    return found
