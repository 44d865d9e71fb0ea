"""RELAX and LAX: a score function with a learned control variate that is differentiated, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, InvalidAssignment, Learns, Memory, Sample, Signal, SiteInfo
from ppgrad.core.distributions import (
    distribution_name,
    element,
    for_event,
    not_reparameterized,
    undifferentiable_density,
)
from ppgrad.core.edges import cut_off
from ppgrad.core.modules import Frozen, predicted
from ppgrad.estimators.discrete.elements import LEAST_LOGIT
from ppgrad.estimators.discrete.relaxation import (
    as_value,
    category_logits,
    exponential_noise,
    one_hot_argmax,
    perturbed,
    perturbed_given,
)


@dataclass(frozen=True)
class RELAX(Estimator, Learns):
    """[f(b) − c(z̃)] ∇log p(b) + ∇c(z) − ∇c(z̃), c a network; of a continuous site LAX: [f(x) − c(x)] ∇log p(x) + ∇c(x).

    z are the Gumbel-perturbed logits of a discrete site, b their argmax, z̃ is z drawn again given b.
    No run of the program beside the one that is drawn. Under SVI, `ElboModule` and `fit` the network
    trains with the others: on the squared norm of the estimate's gradient with respect to the
    logits, which is its variance but for a constant; of a continuous site on (f(x) − c(x))².

    Args:
        module: from z, flattened to ``(…, elements × categories)`` (two for a Bernoulli), or from x,
            flattened to ``(…, elements)``, to one number for each element of the site's plates.
        reads_context: the module is called with the site's context, too: ``module(z, context)``.

    Needs Bernoulli, Categorical or OneHotCategorical elements, or a reparameterized distribution.

    Raises:
        InvalidAssignment: ``module`` is no ``torch.nn.Module``.

    Source: Grathwohl et al. (2018), Backpropagation through the void, eq. 8 (LAX) and eq. 10.
    """

    facts: ClassVar[Facts] = Facts(source="Grathwohl et al. (2018), Backpropagation through the Void, eq. 8 and 10")

    module: torch.nn.Module
    reads_context: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.module, torch.nn.Module):
            raise InvalidAssignment(f"RELAX({self.module!r}): write a torch.nn.Module from z (or x) to one number.")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(_SumOfSquares()),)

    def refuses(self, site: SiteInfo) -> str | None:
        if self.reads_context and not site.has_context:
            return "RELAX(reads_context=True) finds no context; write ppgrad.policy(…, context=state)"
        if _is_discrete(site.fn):
            return None
        if not_reparameterized(site.fn):
            return f"{distribution_name(site.fn)} is neither Bernoulli, Categorical nor reparameterized"
        return undifferentiable_density(site.fn) or cut_off(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        if not _is_discrete(fn):
            path = fn.rsample()
            return Sample(path.detach(), {"path": path})
        logits = category_logits(fn)
        noise, again = exponential_noise(logits), exponential_noise(logits)
        drawn = one_hot_argmax(perturbed(logits.detach(), noise))
        return Sample(as_value(fn, drawn), {"logits": logits, "noise": noise, "again": again})

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        call = Frozen(self.module)
        if "path" in draw.extras:
            control = self._control(call, draw.extras["path"], draw, signal)
            return draw.log_prob * (signal.value - control.detach()) + control
        _, control, conditional = self._controls(call, draw.extras["logits"], draw, signal)
        return draw.log_prob * (signal.value - conditional.detach()) + control - conditional

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        if "path" in draw.extras:
            control = self._control(self.module, draw.extras["path"].detach(), draw, signal)
            return (signal.value - control).square().mean()
        leaf = draw.extras["logits"].detach().requires_grad_()
        drawn, control, conditional = self._controls(self.module, leaf, draw, signal)
        (path,) = torch.autograd.grad((control - conditional).sum(), leaf, create_graph=True)
        advantage = for_event(signal.value - conditional, drawn.dim() - signal.value.dim())
        estimate = advantage * (drawn - leaf.exp()) + path - path.sum(-1, keepdim=True) * leaf.exp()
        return estimate.square().sum() / signal.value.numel()

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return (self.module,)

    def _controls(
        self, call: Callable[..., Tensor], logits: Tensor, draw: Draw, signal: Signal
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The value drawn as one-hot weights, c(z) and c(z̃)."""
        z = perturbed(logits, draw.extras["noise"])
        drawn = one_hot_argmax(z.detach())
        conditional = perturbed_given(logits, drawn, draw.extras["again"])
        # A network is not to see how far out of reach a category is that cannot happen.
        z, conditional = (torch.where(logits > LEAST_LOGIT, x, 0.0) for x in (z, conditional))
        return drawn, self._control(call, z, draw, signal), self._control(call, conditional, draw, signal)

    def _control(self, call: Callable[..., Tensor], z: Tensor, draw: Draw, signal: Signal) -> Tensor:
        batch = draw.log_prob.dim()
        flat = z.reshape(*z.shape[:batch], -1)
        inputs: Any = (flat, draw.context) if self.reads_context else (flat,)
        return predicted(lambda lane: call(*lane), inputs, draw.log_prob, draw.name, "control variate")


def _is_discrete(fn: TorchDistribution) -> bool:
    base = element(fn)
    return isinstance(
        base, torch.distributions.Bernoulli | torch.distributions.Categorical | torch.distributions.OneHotCategorical
    )


class _SumOfSquares(torch.nn.Module):
    """A control variate without parameters to train, for the conformance tests."""

    def forward(self, z: Tensor) -> Tensor:
        return 0.1 * z.square().sum(-1) - 0.5 * z.sum(-1)
