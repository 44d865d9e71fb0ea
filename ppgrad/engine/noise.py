"""Noise that the particles of a site share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ppgrad.core import Draws


def shared_noise(noises: Mapping[str, tuple[Draws, torch.Size]], particles: int) -> dict[str, Tensor]:
    """Uniform noise for each site, ``(particles, *shape)``; sites with the same draws share one sequence."""
    found: dict[str, Tensor] = {}
    for kind in dict.fromkeys(draws for draws, _ in noises.values()):
        shapes = {name: shape for name, (draws, shape) in noises.items() if draws == kind}
        uniforms = kind.uniforms(particles, sum(shape.numel() for shape in shapes.values()))
        parts = torch.split(uniforms, [shape.numel() for shape in shapes.values()], dim=1)
        found |= {n: part.reshape(-1, *shape) for (n, shape), part in zip(shapes.items(), parts, strict=True)}
    return found
