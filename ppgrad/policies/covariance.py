"""Covariances from a vector of unconstrained numbers, without an inverse or a determinant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus


def inverse_softplus(value: Tensor) -> Tensor:
    """The x with log(1 + eˣ) = ``value``."""
    return value + torch.log(-torch.expm1(-value))


class DiagonalNormal(dist.Normal):
    """A Normal that plain ``torch.func.vmap`` can sample with a gradient, too: it fills nothing in place."""

    known_as: ClassVar[str] = "Normal"

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc + self.scale * torch.randn_like(self.loc.expand(self._extended_shape(torch.Size(sample_shape))))


class FullNormal(dist.MultivariateNormal):
    """A MultivariateNormal that plain ``torch.func.vmap`` can sample, too."""

    known_as: ClassVar[str] = "MultivariateNormal"

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = torch.randn_like(self.loc.expand(self._extended_shape(torch.Size(sample_shape))))
        return self.loc + (self._unbroadcasted_scale_tril @ noise[..., None])[..., 0]


class LowRankNormal(dist.LowRankMultivariateNormal):
    """A LowRankMultivariateNormal that plain ``torch.func.vmap`` can sample, too."""

    known_as: ClassVar[str] = "LowRankMultivariateNormal"

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        like = self.loc.expand(self._extended_shape(torch.Size(sample_shape)))
        factor = self._unbroadcasted_cov_factor
        weights = torch.randn_like(like[..., :1].expand(*like.shape[:-1], factor.shape[-1]))
        noise = torch.randn_like(like)
        return self.loc + (factor @ weights[..., None])[..., 0] + self._unbroadcasted_cov_diag.sqrt() * noise


@dataclass(frozen=True)
class Covariance(ABC):
    """How a Normal distribution is made from its mean and an unconstrained vector.

    Args:
        actions: how many dimensions.
        floor: no standard deviation given the other dimensions is below it.
    """

    actions: int
    floor: float

    @abstractmethod
    def initial(self, scale_tril: Tensor) -> Tensor:
        """The vector, shape ``(size,)``, whose covariance has the Cholesky factor ``scale_tril``."""

    @abstractmethod
    def distribution(self, loc: Tensor, vector: Tensor, validate_args: bool | None = None) -> dist.TorchDistribution:
        """The distribution of mean ``loc``, ``(…, actions)``, and covariance from ``vector``, ``(…, size)``."""

    def scales(self, unconstrained: Tensor) -> Tensor:
        """Standard deviations: the floor plus a softplus."""
        return self.floor + softplus(unconstrained)

    def unconstrained(self, scales: Tensor) -> Tensor:
        """The inverse of `scales`."""
        return inverse_softplus(scales - self.floor)


class DiagonalCovariance(Covariance):
    """Σ = diag(σ²)."""

    def initial(self, scale_tril: Tensor) -> Tensor:
        return self.unconstrained(scale_tril.diagonal())

    def distribution(self, loc: Tensor, vector: Tensor, validate_args: bool | None = None) -> dist.TorchDistribution:
        return DiagonalNormal(loc, self.scales(vector), validate_args=validate_args).to_event(1)


class FullCovariance(Covariance):
    """Σ = L Lᵀ, with the diagonal of L and then what is below it, row by row, in the vector."""

    def initial(self, scale_tril: Tensor) -> Tensor:
        row, column = torch.tril_indices(self.actions, self.actions, -1)
        return torch.cat([self.unconstrained(scale_tril.diagonal()), scale_tril[row, column]])

    def distribution(self, loc: Tensor, vector: Tensor, validate_args: bool | None = None) -> dist.TorchDistribution:
        return FullNormal(loc, scale_tril=self.scale_tril(vector), validate_args=validate_args)

    def scale_tril(self, vector: Tensor) -> Tensor:
        """The Cholesky factor L, shape ``(…, actions, actions)``."""
        n = self.actions
        row, column = torch.tril_indices(n, n, -1, device=vector.device)
        place = torch.zeros(n, n, dtype=torch.long, device=vector.device)
        place[row, column] = n + torch.arange(len(row), device=vector.device)
        below = torch.where(place > 0, vector[..., place], torch.zeros((), dtype=vector.dtype, device=vector.device))
        return below + torch.diag_embed(self.scales(vector[..., :n]))


@dataclass(frozen=True)
class LowRankCovariance(Covariance):
    """Σ = W Wᵀ + diag(σ²), with σ and then W, row by row, in the vector.

    At first W is random, since the gradient for W = 0 is zero, and carries a hundredth of each variance.
    """

    rank: int

    def initial(self, scale_tril: Tensor) -> Tensor:
        scales = scale_tril.diagonal()
        factor = torch.randn(self.actions, self.rank)
        factor = 0.1 * scales[:, None] * factor / factor.norm(dim=1, keepdim=True)
        return torch.cat([self.unconstrained((0.99 * scales**2).sqrt()), factor.reshape(-1)])

    def distribution(self, loc: Tensor, vector: Tensor, validate_args: bool | None = None) -> dist.TorchDistribution:
        factor = vector[..., self.actions :].reshape(*vector.shape[:-1], self.actions, self.rank)
        variance = self.scales(vector[..., : self.actions]) ** 2
        return LowRankNormal(loc, factor, variance, validate_args=validate_args)
