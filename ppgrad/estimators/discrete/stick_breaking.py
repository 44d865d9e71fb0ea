"""Discrete values from antithetic pairs of sticks: independent Bernoullis, the first success being the category."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core.distributions import element_shape
from ppgrad.estimators.discrete.elements import uniform, value_at
from ppgrad.estimators.discrete.relaxation import category_logits


class StickPair(NamedTuple):
    """A value and its antithetic twin.

    Args:
        value: drawn, shape batch + event.
        antithetic: its twin, drawn with noise 1 − u; each has the site's distribution.
        logits: of each stick, with the graph to the parameters, shape elements + (categories − 1,).
        noise: u of each stick; a stick succeeds for the value if 1 − u < p, for the twin if u < p.
        matters: 1 for the sticks up to the later of the two categories, 0 for those that no value
            was read from, whose share of a gradient has mean zero.
    """

    value: Tensor
    antithetic: Tensor
    logits: Tensor
    noise: Tensor
    matters: Tensor

    @property
    def drawn(self) -> Tensor:
        """1 where a stick of the value succeeds."""
        return (1 - self.noise < torch.sigmoid(self.logits.detach())).to(self.noise.dtype)

    @property
    def twin(self) -> Tensor:
        """1 where a stick of the twin succeeds."""
        return (self.noise < torch.sigmoid(self.logits.detach())).to(self.noise.dtype)


def stick_logits(fn: TorchDistribution) -> Tensor:
    """logit_k − log Σ_{j>k} exp logit_j for all categories but the last, shape elements + (categories − 1,).

    Source: Dong, Mnih & Tucker (2021), Coupled gradient estimators for discrete latent variables, section 3.2.
    """
    logits = category_logits(fn)
    later = logits.flip(-1).logcumsumexp(-1).flip(-1)
    return (logits[..., :-1] - later[..., 1:]).reshape(*element_shape(fn), logits.shape[-1] - 1)


def stick_pair(fn: TorchDistribution) -> StickPair:
    """Draw a pair of values of Bernoulli, Categorical or OneHotCategorical elements."""
    logits = stick_logits(fn)
    noise, p = uniform(logits), torch.sigmoid(logits.detach())
    index, other = _first(1 - noise < p), _first(noise < p)
    place = torch.arange(logits.shape[-1], device=logits.device)
    matters = (place <= torch.maximum(index, other).unsqueeze(-1)).to(logits.dtype)
    return StickPair(value_at(fn, index), value_at(fn, other), logits, noise, matters)


def _first(successes: Tensor) -> Tensor:
    """The index of the first success, or the number of sticks if there is none."""
    last = successes.new_ones((*successes.shape[:-1], 1))
    return torch.cat([successes, last], -1).long().argmax(-1)
