"""Weak derivatives of Normal and MultivariateNormal."""

from __future__ import annotations

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core.distributions import element
from ppgrad.estimators._measure_valued.pair import Pair, double_sided_maxwell, normal, rayleigh
from ppgrad.estimators.discrete.elements import uniform

RAYLEIGH_CONSTANT = 1 / math.sqrt(2 * math.pi)


def normal_pairs(fn: TorchDistribution, value: Tensor, coupled: bool) -> list[Pair]:
    """μ: Rayleigh on either side; σ: double-sided Maxwell against Normal.

    Source: Mohamed et al. (2020), table 1.
    """
    base = element(fn)
    loc, scale = base.loc.expand(fn.shape()), base.scale.expand(fn.shape())
    m, s = loc.detach(), scale.detach()
    up, down, outer, inner = _noise(value, coupled)
    return [
        Pair(loc * RAYLEIGH_CONSTANT / s, m + s * up, m - s * down),
        Pair(scale / s, m + s * outer, m + s * inner),
    ]


def multivariate_normal_pairs(fn: TorchDistribution, value: Tensor, coupled: bool) -> list[Pair]:
    """With x = m + Lε and g(ε) = f(x): ∂_m = L⁻ᵀ E[∂g], ∂_L = tril(L⁻ᵀ E[∂g εᵀ]), coordinate by coordinate.

    E[∂_k g] and, for j < k, E[∂_k g ε_j] take a Rayleigh pair in the place of ε_k; E[∂_k g ε_k]
    takes a Maxwell pair.
    """
    base = element(fn)
    loc, tril = base.loc.expand(fn.shape()), base.scale_tril.expand(*fn.shape(), fn.shape()[-1])
    held = tril.detach()

    def whitened(columns: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(held, columns, upper=False)

    mean, identity = whitened(loc.unsqueeze(-1)).squeeze(-1), whitened(tril)
    noise = whitened((value - loc.detach()).unsqueeze(-1)).squeeze(-1).detach()
    pairs = []
    for k in range(value.shape[-1]):

        def moved(coordinate: Tensor, k: int = k) -> Tensor:
            return value + held[..., k] * (coordinate - noise[..., k]).unsqueeze(-1)

        up, down, outer, inner = _noise(noise[..., k], coupled)
        weight = mean[..., k] + (noise[..., :k] * identity[..., k, :k]).sum(-1)
        pairs.append(Pair((RAYLEIGH_CONSTANT * weight).unsqueeze(-1), moved(up), moved(-down)))
        pairs.append(Pair(identity[..., k, k].unsqueeze(-1), moved(outer), moved(inner)))
    return pairs


def _noise(like: Tensor, coupled: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rayleigh noise up and down, Maxwell and Normal noise; |Maxwell| · Uniform is |Normal|."""
    up = rayleigh(like)
    down = up if coupled else rayleigh(like)
    outer = double_sided_maxwell(like)
    return up, down, outer, outer * uniform(like) if coupled else normal(like)
