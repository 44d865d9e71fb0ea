"""What a run's program is seen to do: its sites, its policies' spread, where a gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import TransformedDistribution

from ppgrad.core.distributions import distribution_name
from ppgrad.core.generators import aside, set_random_state
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.program.parameters import buffers_unchanged
from ppgrad.engine.running.site import plates_of
from ppgrad.objectives import Objective

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


def explain_gradient(
    objective: Objective, prepared: Prepared, parameters: Mapping[str, Tensor], generators: Any
) -> str:
    """Which site's term gives which parameter a gradient that is NaN or infinite.

    The step is taken again from the generators' state at its beginning, without learning.
    """
    with aside(), buffers_unchanged(prepared.executor.program):
        set_random_state(generators)
        for site, what, term in _terms(objective, prepared):
            if not term.requires_grad:
                continue
            found = torch.autograd.grad(term.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None and not bool(torch.isfinite(gradient).all()):
                    bad = float(gradient[~torch.isfinite(gradient)][0])
                    return (
                        f"At site '{site}' the gradient of the {what} with respect to parameter '{name}' is {bad:g}. "
                        "Keep it finite: look for a square root, a logarithm or a quotient at the edge of its range."
                    )
    name = next(name for name, leaf in parameters.items() if not _is_finite(leaf.grad))
    return f"The gradient of parameter '{name}' is not finite. Keep the program's numbers finite."


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


def _terms(objective: Objective, prepared: Prepared) -> Iterator[tuple[str, str, Tensor]]:
    estimate = objective.estimate(replace(prepared.executor, together=False))
    for record in estimate.records:
        for entry in record.entries:
            if entry.cost is not None:
                yield entry.name, "cost", entry.cost
    for draw, signal, estimator in estimate.served:
        term = estimator.surrogate(draw, signal, objective.memory.get(draw.name, {}))
        if term is not None:
            yield draw.name, f"surrogate of {type(estimator).__name__}", term


def _is_finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(torch.isfinite(gradient).all())
