"""Enumeration: sum over the support instead of drawing from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent

from ppgrad.core import Estimator, Facts, SiteInfo, SumsOver
from ppgrad.core.distributions import distribution_name, given_probabilities, is_possible, without_mask

MOST = 10**6
"""The most joint values of one event."""


@dataclass(frozen=True)
class Enumerate(Estimator, SumsOver):
    """∇ Σ_v p(v) f(v): the site is summed out, so that it adds no variance.

    The program runs once for every joint value of all its enumerated sites, as branches of one
    run. Elements of a plate share their branches as long as everything downstream stays inside
    that plate; where something couples them, their joint values are enumerated instead. The
    objective's ``max_branches`` bounds the number.

    Needs a finite support.

    Source: Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning, section 2.
    """

    facts: ClassVar[Facts] = Facts(
        source="Mohamed et al. (2020), Monte Carlo Gradient Estimation in Machine Learning, section 2"
    )

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        base = _base(site.fn)
        if not base.has_enumerate_support:
            return f"{distribution_name(site.fn)} has no finite support to enumerate"
        try:
            values, elements = len(base.enumerate_support(expand=False)), _elements(site.fn)
        except NotImplementedError:
            return f"the elements of {distribution_name(site.fn)} have different supports"
        if values**elements > MOST:
            return f"one event has {values}^{elements} joint values, too many to sum over"
        return None

    def grid(self, fn: TorchDistribution) -> Tensor:
        """Every joint value of one event, shape ``(n, *event)``."""
        base = _base(fn)
        support = base.enumerate_support(expand=False)
        support = support.reshape(support.shape[0], *base.event_shape)
        elements = _elements(fn)
        combinations = torch.cartesian_prod(*[torch.arange(len(support), device=support.device)] * elements)
        return support[combinations.reshape(-1, elements)].reshape(-1, *fn.event_shape)

    def grid_log_weight(self, fn: TorchDistribution, value: Tensor, index: Tensor) -> Tensor:
        log_prob: Tensor = without_mask(fn).log_prob(value)
        if given_probabilities(fn) is None:
            return log_prob
        possible = is_possible(fn, value).reshape((*fn.batch_shape, -1)).all(-1)
        return torch.where(possible, log_prob, -math.inf)


def _elements(fn: TorchDistribution) -> int:
    return math.prod(fn.event_shape[: len(fn.event_shape) - len(_base(fn).event_shape)])


def _base(fn: TorchDistribution) -> TorchDistribution:
    fn = without_mask(fn)
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn
