"""A baseline learned from the site's context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ppgrad.core import Baseline, Draw, InvalidAssignment, InvalidProgram, Memory, Signal, SiteInfo


@dataclass(frozen=True)
class Critic(Baseline):
    """b = −``module(context)``, regressed on the signal: (f − b)², its own loss, its own parameters.

    The module predicts the return to come (a state-value function), the signal f is a cost. Under
    SVI and `ELBOModule` its parameters train with the others; neither the context nor the policy
    gets a gradient from it.

    Args:
        module: from the site's ``context`` to one number for each element of its plates.

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
        return (cls(_MeanOfContext()),)

    def refuses(self, site: SiteInfo) -> str | None:
        if site.has_context:
            return None
        return "Critic reads the site's context, and it has none; write ppgrad.policy(…, context=state)"

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        context = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, draw.context)
        return -fit_to_signal(over_lanes(self.module, context), signal.value, draw.name)

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return (signal.value - self.predict(draw, signal, memory)).square().mean()

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return (self.module,)


def over_lanes(function: Any, context: Any) -> Tensor:
    """Call ``function`` on each lane of ``context``, as the program would have called it."""
    lanes = tree_leaves(context)[0].shape[:2]
    if lanes == (1, 1):
        return function(tree_map(lambda x: x[0, 0], context))[None, None]
    return torch.vmap(torch.vmap(function, randomness="different"), randomness="different")(context)


def fit_to_signal(values: Tensor, signal: Tensor, site: str) -> Tensor:
    """Give a prediction the padded shape of the signal; a trailing feature of size one may go."""
    plates = signal.shape[2:]
    for shape in (values.shape[2:], values.shape[2:-1] if values.shape[-1:] == (1,) else None):
        if shape is not None and len(shape) <= len(plates) and shape == plates[len(plates) - len(shape) :]:
            return values.reshape(*values.shape[:2], *[1] * (len(plates) - len(shape)), *shape)
    raise InvalidProgram(
        f"The critic of site '{site}' returned shape {tuple(values.shape[2:])}, and the signal has shape "
        f"{tuple(plates)}. Return one number for each element of the site's plates."
    )


class _MeanOfContext(torch.nn.Module):
    """A critic without parameters to train, for the conformance tests."""

    def forward(self, context: Tensor) -> Tensor:
        return context.mean(-1)
