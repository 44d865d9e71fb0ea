"""Policies whose actions may be squashed into bounds."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor

from ppgrad.core import InvalidInput
from ppgrad.policies.arguments import Bounds, flag, limits
from ppgrad.policies.policy import Policy
from ppgrad.policies.squashed import Squashed


class SquashingPolicy(Policy):
    """A policy over real numbers, squashed into bounds if it was asked to; the bounds are buffers ``low`` and ``high``.

    Raises:
        InvalidInput: bounds without squashing, or bounds that are none.
    """

    low: Tensor
    high: Tensor

    def _set_bounds(self, squash: bool, bounds: Bounds | None) -> None:
        where = type(self).__name__
        self.squash = flag(where, "squash", squash)
        if self.squash:
            low, high = limits(where, (-1.0, 1.0) if bounds is None else bounds, self.actions)
            self.register_buffer("low", low)
            self.register_buffer("high", high)
        elif bounds is not None:
            raise InvalidInput(
                f"{where}(bounds={bounds!r}): an action that is not squashed has no bounds. Write squash=True, or "
                "BetaPolicy(…, bounds=…)."
            )

    def _squashed(self, raw: dist.TorchDistribution, validate_args: bool | None) -> dist.TorchDistribution:
        """The distribution of actions, from that of raw ones."""
        return Squashed(raw, self.low, self.high, validate_args=validate_args) if self.squash else raw
