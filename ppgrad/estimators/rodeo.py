"""RODEO: leave-one-out with control variates from a discrete Stein operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, InvalidAssignment, Learns, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.core.distributions import for_event, sampled
from ppgrad.core.modules import Frozen
from ppgrad.estimators.discrete.elements import logits, mean_of_others, needs_particles, not_bernoulli


@dataclass(frozen=True)
class Rodeo(Estimator, Learns):
    """[f_k − Σ_{j≠k} (f_j + A h_j(x_j)) / (K−1)] ∇log p(x_k) + A(h*_k ∇log p)(x_k).

    A is the Gibbs Stein operator, (Ah)(x) = (1/d) Σ_i p_i(1 − x_i) [h(x with element i flipped) − h(x)],
    whose expectation is zero for any h. With D_l(y) = ∇f_lᵀ(y − x_l) from the other particles l,
    h_k(y) and h*_k(y) are the means over l ≠ k of H(f_l, D_l(y)): without a network d · D and D.
    One branch, the program as drawn, differentiated with respect to the value.

    Args:
        module: H, from ``(…, 2)`` (f and D) to ``(…, 2)`` corrections of h and h*; under SVI and `fit` it
            trains on the squared norm of the estimate's gradient with respect to the logits.

    Needs two particles, Bernoulli elements, and a program that is differentiable in them.

    Raises:
        InvalidAssignment: ``module`` is neither a ``torch.nn.Module`` nor None.

    Source: Shi, Zhou, Hwang, Titsias & Mackey (2022), Gradient estimation with discrete Stein
    operators, eq. 15 and section 4.2.
    """

    facts: ClassVar[Facts] = Facts(
        source="Shi et al. (2022), Gradient Estimation with Discrete Stein Operators, eq. 15"
    )
    needs: ClassVar[Needs] = Needs(alternatives=True, slopes=True)

    module: torch.nn.Module | None = None

    def __post_init__(self) -> None:
        if self.module is not None and not isinstance(self.module, torch.nn.Module):
            raise InvalidAssignment(f"Rodeo({self.module!r}): write a torch.nn.Module from (…, 2) to (…, 2), or None.")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(_Tanh()))

    def refuses(self, site: SiteInfo) -> str | None:
        return needs_particles(site, type(self).__name__) or not_bernoulli(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        value = sampled(fn)
        return Sample(value, {"logits": logits(fn)}, value.unsqueeze(0))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        phi = _flat(draw.extras["logits"], draw)
        module = None if self.module is None else Frozen(self.module)
        return (phi * self._estimate(draw, signal, module).detach()).sum(-1)

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        if self.module is None:
            return None
        return self._estimate(draw, signal, self.module).square().sum() / signal.value.numel()

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return () if self.module is None else (self.module,)

    def _estimate(self, draw: Draw, signal: Signal, module: object) -> Tensor:
        """The gradient with respect to the logits: particles, grid, plates, elements."""
        x, slope = _flat(draw.value, draw), _flat(signal.gradients[0], draw)
        p = torch.sigmoid(_flat(draw.extras["logits"], draw).detach())
        d, flip, weight = x.shape[-1], 1 - 2 * x, torch.where(x > 0, 1 - p, p)
        # [k, l]: where the function of particle l is evaluated at particle k, and at k with element i flipped.
        here = (slope.unsqueeze(0) * (x.unsqueeze(1) - x.unsqueeze(0))).sum(-1)
        there = here.unsqueeze(-1) + slope.unsqueeze(0) * flip.unsqueeze(1)
        cost = signal.value.unsqueeze(0).expand_as(here)
        h_here, star_here = self._functions(cost, here, d, module)
        h_there, star_there = self._functions(cost.unsqueeze(-1).expand_as(there), there, d, module)
        stein = (weight * (h_there - h_here.unsqueeze(-1))).mean(-1)
        advantage = signal.value - mean_of_others(signal.value + stein)
        change = (weight * (star_there - star_here.unsqueeze(-1))).mean(-1)
        return for_event(advantage + change, 1) * (x - p) + weight * star_there * flip / d

    def _functions(self, cost: Tensor, along: Tensor, d: int, module: object) -> tuple[Tensor, Tensor]:
        """h and h*, averaged over the other particles."""
        h, star = d * along, along
        if callable(module):
            correction = module(torch.stack([cost, along], -1))
            h, star = h + correction[..., 0], star + correction[..., 1]
        return _without_own(h), _without_own(star)


def _flat(tensor: Tensor, draw: Draw) -> Tensor:
    return tensor.reshape(*tensor.shape[: draw.log_prob.dim()], -1)


def _without_own(values: Tensor) -> Tensor:
    """The mean over l ≠ k of values at [k, l]."""
    others = 1 - torch.eye(len(values), dtype=values.dtype, device=values.device)
    return (values * others.reshape(*others.shape, *[1] * (values.dim() - 2))).sum(1) / max(len(values) - 1, 1)


class _Tanh(torch.nn.Module):
    """A network without parameters to train, for the conformance tests."""

    def forward(self, pair: Tensor) -> Tensor:
        return torch.tanh(pair)
