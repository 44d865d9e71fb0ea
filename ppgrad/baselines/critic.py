"""A baseline learned from the site's context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppgrad.core import Baseline, Draw, InvalidAssignment, Learns, Memory, Signal, SiteInfo
from ppgrad.core.draw import Regressed
from ppgrad.core.modules import predicted


@dataclass(frozen=True)
class Critic(Baseline, Learns):
    """b = −``module(context)``, regressed on the signal: (f − b)², its own loss, its own parameters.

    The module predicts the return to come (a state-value function), the signal f is a cost. Under a
    discount it predicts what is to come as seen from there: b = −γ^t ``module(context)``. Under
    SVI and `ELBOModule` its parameters train with the others; neither the context nor the policy
    gets a gradient from it.

    Args:
        module: from the site's ``context`` to one number for each element of its plates.

    Raises:
        InvalidAssignment: ``module`` is no ``torch.nn.Module``.

    Source: Mnih & Gregor (2014), Neural variational inference, section 2.3.
    """

    source: ClassVar[str] = (
        "Mnih & Gregor (2014), Neural Variational Inference and Learning in Belief Networks, section 2.3"
    )

    module: torch.nn.Module

    def __post_init__(self) -> None:
        if not isinstance(self.module, torch.nn.Module):
            raise InvalidAssignment(f"Critic({self.module!r}): write a torch.nn.Module from the context to one number.")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(MeanOfContext()),)

    def refuses(self, site: SiteInfo) -> str | None:
        if site.has_context:
            return None
        return "Critic reads the site's context, and it has none; write ppgrad.policy(…, context=state)"

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return self.cost(draw, signal).detach()

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return self.loss_on(signal.value, draw, signal)

    def cost(self, draw: Draw, signal: Signal) -> Tensor:
        """The cost to come that it predicts, of the signal's shape; 0 where nothing depends on the draw."""
        key = (self, torch.is_grad_enabled())
        if key not in signal.cache:
            context = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, draw.context)
            cost = -draw.discount * predicted(self.module, context, signal.value, draw.name)
            signal.cache[key] = cost if draw.active is None else cost * draw.active
        return signal.cache[key]

    def loss_on(self, target: Tensor, draw: Draw, signal: Signal) -> Tensor:
        """The mean squared error of the prediction, in undiscounted units.

        Nothing is learned from draws whose discount is next to nothing in the target's precision.
        """
        precision = torch.finfo(target.dtype)
        discount = max(draw.discount, precision.tiny / precision.eps)
        error = (target - self.cost(draw, signal)) / discount
        signal.regressed = Regressed(target.detach() / discount, error.detach())
        return error.square().mean()

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return (self.module,)


class MeanOfContext(torch.nn.Module):
    """A critic without parameters to train, for the conformance tests."""

    def forward(self, context: Tensor) -> Tensor:
        return context.to(torch.get_default_dtype()).mean(-1)
