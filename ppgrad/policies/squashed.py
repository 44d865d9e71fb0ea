"""A distribution over bounded actions: tanh of another one, with the raw action kept beside."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl
from torch.nn.functional import softplus

from ppgrad.core.distributions import estimates_entropy
from ppgrad.policies.gaussian_mixture import GaussianMixture

_NODES, _REACH = 128, 8.0
"""Points of the quadrature for the entropy, and how many standard deviations they reach."""


class Squashed(dist.TorchDistribution):
    """a = c + h tanh(u) with u ~ ``base_dist``, c and h the centre and half-width of [low, high].

    log p(a) = log p(u) − Σ log |da/du|, log |da/du| = log h + 2 (log 2 − u − softplus(−2u)), which is
    finite for every u. The inverse of tanh is not: in single precision a is ±1 from |u| = 9 on. So
    the distribution remembers the raw actions of its latest draw, and `raw` finds them again for
    the elements of an action that are equal, detached or not, also under ``torch.func.vmap``. For
    another action `raw` is the inverse, from the largest number below the bound at most. Whoever
    evaluates an action under another distribution (a replay buffer, an importance ratio) keeps
    `raw` of it and calls `log_prob_of_raw`.

    ``entropy()`` is that of ``base_dist`` plus E[Σ log |da/du|] by the trapezoidal rule, one dimension
    at a time: differentiable, without noise, and with an error of the order exp(−79/σ) for a raw
    standard deviation σ, since log |da/du| is analytic in a strip (Trefethen & Weideman, 2014).

    Args:
        base_dist: the distribution of the raw action, with one event dimension: Normal, or a mixture.
        low, high: the bounds, a number or one for each action.

    Source: Haarnoja et al. (2018), Soft actor-critic, appendix C.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(
        self,
        base_dist: dist.TorchDistribution,
        low: Tensor | float,
        high: Tensor | float,
        validate_args: bool | None = None,
    ):
        self.base_dist = base_dist
        self.low, self.high = (torch.as_tensor(bound).expand(base_dist.event_shape) for bound in (low, high))
        self._latest: dict[str, Tensor] = {}
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:
        return bool(self.base_dist.has_rsample)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.interval(self.low, self.high), 1)  # type: ignore[no-untyped-call]

    @property
    def estimates_entropy(self) -> bool:
        """Whether ``entropy()`` is a random estimate, since that of the raw action is."""
        return estimates_entropy(self.base_dist)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest action, as a policy was given them."""
        return self.low, self.high

    @property
    def mode(self) -> Tensor:
        """The squashed mode of the raw action, which is what a deterministic policy does."""
        return self.squash(self.base_dist.mode)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Squashed:
        new = Squashed(self.base_dist.expand(batch_shape), self.low, self.high, validate_args=False)
        new._validate_args = self._validate_args
        new._latest = self._latest
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self._remember(self.base_dist.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._remember(self.base_dist.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_of_raw(self.raw(value))

    def log_prob_of_raw(self, raw: Tensor) -> Tensor:
        """The log density of the action ``squash(raw)``, without the inverse."""
        log_prob: Tensor = self.base_dist.log_prob(raw)
        return log_prob - self._log_slope(raw).sum(-1)

    def squash(self, raw: Tensor) -> Tensor:
        """The action of a raw action."""
        action = self._centre + self._half_width * torch.tanh(raw)
        return action.clamp(self.low, self.high)  # rounding may step over a bound

    def raw(self, value: Tensor) -> Tensor:
        """The raw action of an action: as it was drawn here, else the inverse of `squash`."""
        latest = self._latest.get("value")
        if latest is not None and value is latest and value.requires_grad == self._latest["raw"].requires_grad:
            return self._latest["raw"]
        fraction = (value - self._centre) / self._half_width
        below_one = 1 - torch.finfo(fraction.dtype).eps / 2
        inverse = torch.atanh(fraction.detach().clamp(-below_one, below_one))
        if latest is not None and latest.shape == value.shape:
            with suppress(RuntimeError):  # what was drawn under a vmap that has ended is nobody's
                inverse = torch.where(value == latest, self._latest["raw"], inverse).detach()
        if not value.requires_grad:
            return inverse
        return inverse + (value - value.detach()) * torch.exp(-self._log_slope(inverse))

    def entropy(self) -> Tensor:
        base: Tensor = self.base_dist.entropy()
        return base + self._mean_log_slope(self.base_dist)

    @property
    def _centre(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def _half_width(self) -> Tensor:
        return (self.high - self.low) / 2

    def _remember(self, raw: Tensor) -> Tensor:
        value = self.squash(raw)
        self._latest.update(value=value, raw=raw)
        return value

    def _log_slope(self, raw: Tensor) -> Tensor:
        return torch.log(self._half_width) + 2 * (math.log(2) - raw - softplus(-2 * raw))

    def _mean_log_slope(self, base: dist.TorchDistribution) -> Tensor:
        if isinstance(base, GaussianMixture):
            of_components = self._mean_log_slope(base.component_distribution)
            return (base.mixture_distribution.probs * of_components).sum(-1)
        nodes = torch.linspace(-_REACH, _REACH, _NODES, dtype=base.mean.dtype, device=base.mean.device)
        weights = torch.softmax(-(nodes**2) / 2, 0)
        raw = base.mean[..., None, :] + base.variance.sqrt()[..., None, :] * nodes[:, None]
        return (self._log_slope(raw).sum(-1) * weights).sum(-1)


@register_kl(Squashed, Squashed)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_squashed(p: Squashed, q: Squashed) -> Tensor:
    """A bijection leaves a divergence as it is."""
    if not (torch.equal(p.low, q.low) and torch.equal(p.high, q.high)):
        raise NotImplementedError("the bounds differ")
    divergence: Tensor = kl_divergence(p.base_dist, q.base_dist)
    return divergence
