"""Independent Beta distributions, each over an interval of its own."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl


class ScaledBeta(dist.TorchDistribution):
    """a = low + (high − low) x, x_i ~ Beta(α_i, β_i): one event dimension, bounded actions.

    It is drawn as a ratio of Gamma variables, whose gradient torch knows implicitly, so that
    ``torch.func.vmap`` can carry it. An action at the very bound counts as the number next to it.

    Args:
        concentration1, concentration0: α and β, shape (…, actions).
        low, high: the bounds, a number or one for each action.

    Source: Chou, Maturana & Scherer (2017), Improving stochastic policy gradients with the Beta
    distribution, section 4; gradient: Figurnov et al. (2018), section 3.
    """

    arg_constraints: dict[str, constraints.Constraint] = {  # noqa: RUF012
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }
    has_rsample = True

    def __init__(
        self,
        concentration1: Tensor,
        concentration0: Tensor,
        low: Tensor | float,
        high: Tensor | float,
        validate_args: bool | None = None,
    ):
        shape = torch.broadcast_shapes(concentration1.shape, concentration0.shape)  # type: ignore[no-untyped-call]
        self.concentration1, self.concentration0 = concentration1.expand(shape), concentration0.expand(shape)
        self.low, self.high = (torch.as_tensor(bound).expand(shape[-1:]) for bound in (low, high))
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.interval(self.low, self.high), 1)  # type: ignore[no-untyped-call]

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest action, as a policy was given them."""
        return self.low, self.high

    @property
    def mean(self) -> Tensor:
        return self._scaled(self.concentration1 / (self.concentration1 + self.concentration0))

    @property
    def variance(self) -> Tensor:
        variance: Tensor = self._unit.variance
        return (self.high - self.low) ** 2 * variance

    @property
    def mode(self) -> Tensor:
        """The mode where α, β > 1; else the mean."""
        above = (self.concentration1 > 1) & (self.concentration0 > 1)
        total = torch.where(above, self.concentration1 + self.concentration0 - 2, torch.ones_like(self.concentration1))
        return torch.where(above, self._scaled((self.concentration1 - 1) / total), self.mean)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ScaledBeta:
        shape = torch.Size(batch_shape) + self.event_shape
        new = ScaledBeta(
            self.concentration1.expand(shape), self.concentration0.expand(shape), self.low, self.high, False
        )
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        first, second = (torch._standard_gamma(c.expand(shape)) for c in (self.concentration1, self.concentration0))
        action = self._scaled(self._inside(first / (first + second)))
        return action.clamp(self.low, self.high)  # rounding may step over a bound

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        width = self.high - self.low
        log_prob: Tensor = self._unit.log_prob(self._inside((value - self.low) / width)).sum(-1)
        return log_prob - torch.log(width).sum()

    def entropy(self) -> Tensor:
        entropy: Tensor = self._unit.entropy().sum(-1)
        return entropy + torch.log(self.high - self.low).sum()

    @property
    def _unit(self) -> dist.Beta:
        return dist.Beta(self.concentration1, self.concentration0, validate_args=False)

    def _scaled(self, unit: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * unit

    def _inside(self, unit: Tensor) -> Tensor:
        information = torch.finfo(unit.dtype)
        return unit.clamp(information.tiny, 1 - information.eps / 2)


@register_kl(ScaledBeta, ScaledBeta)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_scaled_beta(p: ScaledBeta, q: ScaledBeta) -> Tensor:
    """The sum over actions; a change of scale leaves it as it is."""
    if not (torch.equal(p.low, q.low) and torch.equal(p.high, q.high)):
        raise NotImplementedError("the bounds differ")
    divergence: Tensor = kl_divergence(p._unit, q._unit).sum(-1)
    return divergence
