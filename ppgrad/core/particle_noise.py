"""How the particles of a site share their noise: antithetic pairs, quasi-Monte Carlo points."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, MultivariateNormal

from ppgrad.core.distributions import distribution_name, element, tensor_of, without_mask
from ppgrad.core.errors import InvalidAssignment
from ppgrad.core.sample import Draws
from ppgrad.core.site_info import SiteInfo


def not_drawable(draws: Draws, site: SiteInfo) -> str | None:
    """Why the particles of ``site`` cannot share noise, or None if they can."""
    name = type(draws).__name__
    if site.num_importance > 1:
        return f"{name}() would make importance samples depend on each other, which is another bound"
    if site.num_particles < 2:
        return f"{name}() relates particles; write num_particles=2 or more"
    return no_quantile(site.fn)


def check_draws(owner: str, draws: object) -> None:
    """Raise unless ``draws`` is None or an instance that says how particles share noise.

    Raises:
        InvalidAssignment: says what to write.
    """
    if draws is not None and not isinstance(draws, Draws):
        raise InvalidAssignment(f"{owner}(draws={draws!r}): write Antithetic() or QuasiMonteCarlo(), an instance.")


@dataclass(frozen=True)
class Antithetic(Draws):
    """Pairs of particles with noise u and 1 − u; an odd particle has noise of its own.

    Source: Owen (2013), Monte Carlo theory, methods and examples, section 8.2.
    """

    def uniforms(
        self,
        particles: int,
        dimensions: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        half = _inside(torch.rand((particles + 1) // 2, dimensions, dtype=dtype, device=device))
        return torch.cat([half, 1 - half])[:particles]


@dataclass(frozen=True)
class QuasiMonteCarlo(Draws):
    """The points of a Sobol sequence, shifted at random modulo 1 (a Cranley–Patterson rotation).

    All sites that have it share one sequence, each its own dimensions of it. Powers of two are the
    best numbers of particles.

    Source: Buchholz, Wenzel & Mandt (2018), Quasi-Monte Carlo variational inference, section 3.2;
    Cranley & Patterson (1976).
    """

    def uniforms(
        self,
        particles: int,
        dimensions: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        shift = torch.rand(dimensions, dtype=dtype, device=device)
        return _inside((_sobol(particles, dimensions).to(shift) + shift) % 1.0)


@lru_cache(maxsize=32)
def _sobol(points: int, dimensions: int) -> Tensor:
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The balance properties of Sobol")
        return torch.as_tensor(qmc.Sobol(dimensions, scramble=False).random(points))


def _inside(uniform: Tensor) -> Tensor:
    eps = torch.finfo(uniform.dtype).eps
    return uniform.clamp(eps, 1 - eps)


def no_quantile(fn: TorchDistribution) -> str | None:
    """Why ``fn`` cannot be drawn from uniform noise, or None if it can."""
    try:
        quantile(fn, tensor_of(fn).new_full(fn.shape(), 0.5))
    except NotImplementedError:
        return f"{distribution_name(fn)} has no quantile function to draw from uniform noise with"
    return None


def quantile(fn: TorchDistribution, uniform: Tensor) -> Tensor:
    """The value of ``fn`` for uniform noise of its shape, with a graph to its parameters where it is continuous."""
    base = element(fn)
    if isinstance(base, Bernoulli):
        return (uniform < base.probs).to(base.probs.dtype)
    if isinstance(base, Categorical):
        return (uniform.unsqueeze(-1) > base.probs.cumsum(-1)[..., :-1]).sum(-1)
    if isinstance(base, MultivariateNormal):
        noise = 2**0.5 * torch.erfinv(2 * uniform - 1).to(base.loc.dtype)
        return base.loc + (base.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    if base.event_shape:
        raise NotImplementedError
    value: Tensor = base.icdf(uniform).expand(without_mask(fn).shape())
    return value
