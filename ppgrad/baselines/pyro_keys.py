"""Pyro's own baseline keys: ``infer={"baseline": {…}}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppgrad.baselines.moving_average import MovingAverage
from ppgrad.core import Baseline, Draw, InvalidAssignment, Learns, Memory, Remembers, Signal
from ppgrad.core.draw import Regressed
from ppgrad.core.modules import fit_to_signal, over_lanes

KEYS = (
    "nn_baseline",
    "nn_baseline_input",
    "use_decaying_avg_baseline",
    "baseline_beta",
    "baseline_value",
)


@dataclass(frozen=True)
class PyroBaseline(Baseline, Learns, Remembers):
    """b = decaying average − (network(input) or a given value), as ``TraceGraph_ELBO`` reads them.

    As in Pyro the network and the value predict the return (or the bound) to come.

    Args:
        average: the decaying average, or None.
        module: the network, or None.
        reads_value: the site's ``baseline_value`` takes the place of a network.

    Source: Pyro's ``TraceGraph_ELBO``; Mnih & Gregor (2014).
    """

    source: ClassVar[str] = "Pyro, TraceGraph_ELBO; Mnih & Gregor (2014)"

    average: MovingAverage | None = None
    module: torch.nn.Module | None = None
    reads_value: bool = False

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(average=MovingAverage(0.9)),)

    @classmethod
    def from_infer(cls, name: str, keys: Mapping[str, Any]) -> Self | None:
        """Read ``infer["baseline"]`` of site ``name``; None where it asks for none.

        Raises:
            InvalidAssignment: a key that Pyro does not know, or keys that exclude one another.
        """
        unknown = sorted(set(keys) - set(KEYS))
        if unknown:
            raise InvalidAssignment(
                f"Site '{name}': infer['baseline'] has the unknown key {unknown[0]!r}. Known are {', '.join(KEYS)}."
            )
        module = keys.get("nn_baseline")
        reads_value = keys.get("baseline_value") is not None
        if module is not None and reads_value:
            raise InvalidAssignment(
                f"Site '{name}': infer['baseline'] has both nn_baseline and baseline_value. Leave one out."
            )
        if module is not None and keys.get("nn_baseline_input") is None:
            raise InvalidAssignment(
                f"Site '{name}': infer['baseline'] has nn_baseline without nn_baseline_input. Add what it reads."
            )
        if "baseline_beta" in keys and not keys.get("use_decaying_avg_baseline"):
            raise InvalidAssignment(
                f"Site '{name}': infer['baseline'] has baseline_beta, which nothing reads. "
                "Add use_decaying_avg_baseline=True."
            )
        decaying = keys.get("use_decaying_avg_baseline", False)
        average = MovingAverage(keys.get("baseline_beta", 0.9)) if decaying else None
        if average is None and module is None and not reads_value:
            return None
        return cls(average, module, reads_value)

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return self._cost(draw, signal, memory).detach()

    def _cost(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        total = torch.zeros_like(signal.value)
        if self.average is not None:
            total = total + self.average.predict(draw, signal, memory)
        if self.module is not None:
            values = over_lanes(self.module, tree_map(lambda x: x.detach(), draw.context))
            total = total - fit_to_signal(values, signal.value, draw.name)
        elif self.reads_value:
            total = total - fit_to_signal(draw.context, signal.value, draw.name)
        return total

    def update(self, draw: Draw, signal: Signal, memory: Memory) -> Memory:
        return memory if self.average is None else self.average.update(draw, signal, memory)

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        if self.module is None and not self.reads_value:
            return None
        error = signal.value - self._cost(draw, signal, memory)
        signal.regressed = Regressed(signal.value, error.detach())
        return error.square().sum()

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return () if self.module is None else (self.module,)
