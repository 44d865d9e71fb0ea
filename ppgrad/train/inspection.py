"""What a run's program is seen to do: its sites, and its policies' spread."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import TransformedDistribution

from ppgrad.core.distributions import distribution_name
from ppgrad.engine.running.site import plates_of

_GAUSSIAN = (dist.Normal, dist.MultivariateNormal, dist.LowRankMultivariateNormal)


class SiteObserver(Messenger):
    """Notes the policy sites of the latest run, and the standard deviations of those that are Gaussian.

    Also under vmap: then of all lanes. With ``describes`` it puts each site into words, too.
    """

    def __init__(self, describes: bool = False) -> None:
        super().__init__()
        self.sites: dict[str, str] = {}
        self.policies: set[str] = set()
        self._describes = describes
        self._spreads: dict[str, Tensor] = {}

    @property
    def std(self) -> float | None:
        """The standard deviation of an action, before any squashing, averaged over Gaussian policy sites."""
        if not self._spreads:
            return None
        return float(torch.stack([spread.mean() for spread in self._spreads.values()]).mean())

    def _pyro_post_sample(self, message: Any) -> None:
        if message["infer"] and message["infer"].get("policy"):
            self.policies.add(message["name"])
            fn = _innermost(message["fn"])
            if isinstance(fn, _GAUSSIAN):
                with torch.no_grad():
                    self._spreads[message["name"]] = _over_lanes(fn.stddev)
        if self._describes and type(message["fn"]).__name__ != "_Subsample":
            self.sites[message["name"]] = _in_words(message)


def _innermost(fn: Any) -> Any:
    while hasattr(fn, "base_dist") and not isinstance(fn, TransformedDistribution):
        fn = fn.base_dist
    return fn


def _over_lanes(tensor: Tensor) -> Tensor:
    """A tensor as it is outside of vmap: all lanes at once."""
    tensor = tensor.detach()
    while torch._C._functorch.is_batchedtensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def _in_words(message: Any) -> str:
    fn = message["fn"]
    name = "a reward" if message["infer"].get("reward") else f"{distribution_name(fn)} of shape {tuple(fn.event_shape)}"
    plates = ", ".join(f"{plate.name}={plate.size}" for plate in sorted(plates_of(message)[0], key=lambda p: p.dim))
    return f"{name} in plates {plates}" if plates else name
