"""Families of distributions as torch has them, each with points over which an expectation is a sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.distributions as td
from torch import Tensor

Rough = Literal["", "kinks", "jumps"]
"""What is summed is smooth, has kinks, or jumps where a continuous value is 0."""


@dataclass(frozen=True)
class Family:
    """A family of distributions.

    Args:
        name: of the class in ``torch.distributions`` and in ``pyro.distributions``.
        arguments: keywords of its parameters.
        own: the family's own event dimensions, 0 or 1; its first parameter has as many more.
        wide: how many dimensions its first parameter has more than a value's element: 1 for logits of categories.
        points: from the distribution, a number of nodes and how rough what is summed is: values ``(points, *shape)``,
            and for each the logarithm of what its density is to be multiplied with, constants.
        finite: the sum has no error.
    """

    name: str
    arguments: tuple[str, ...]
    points: Callable[[td.Distribution, int, Rough], tuple[Tensor, Tensor]]
    wide: int = 0
    own: int = 0
    finite: bool = False


def _finite(fn: td.Distribution, nodes: int, rough: Rough) -> tuple[Tensor, Tensor]:
    values = fn.enumerate_support(expand=True)
    return values, torch.zeros(values.shape[: values.dim() - len(fn.event_shape)])


def _counts(fn: td.Distribution, nodes: int, rough: Rough) -> tuple[Tensor, Tensor]:
    values = torch.arange(float(max(24, nodes))).reshape(-1, *[1] * len(fn.batch_shape)).expand(-1, *fn.batch_shape)
    return values, torch.zeros(values.shape)


def _normal(fn: td.Distribution, nodes: int, rough: Rough) -> tuple[Tensor, Tensor]:
    if rough == "jumps" and isinstance(fn, td.Normal):
        return _cut(fn, nodes)
    return _steps(fn, nodes) if rough else _hermite(fn, nodes)


def _steps(fn: td.Distribution, nodes: int) -> tuple[Tensor, Tensor]:
    """Equal steps."""
    normal: Any = fn.base_dist if isinstance(fn, td.LogNormal) else fn
    edges = torch.linspace(-6.5, 6.5, 2 * nodes + 1)
    middle = ((edges[1:] + edges[:-1]) / 2).reshape(-1, *[1] * len(fn.batch_shape))
    values = normal.loc + normal.scale * middle
    sizes = (normal.scale * (edges[1] - edges[0])).log().expand(values.shape)
    return (values.exp(), sizes + values) if isinstance(fn, td.LogNormal) else (values, sizes)


def _cut(fn: td.Normal, nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss–Legendre on both sides of 0, where the cost may jump."""
    where, weights = (torch.as_tensor(each).reshape(-1, *[1] * len(fn.batch_shape)) for each in _legendre(2 * nodes))
    low, high = fn.loc - 8 * fn.scale, fn.loc + 8 * fn.scale
    halves = [(low.clamp(max=0.0), high.clamp(max=0.0)), (low.clamp(min=0.0), high.clamp(min=0.0))]
    values = torch.cat([(end + start) / 2 + (end - start) / 2 * where for start, end in halves])
    sizes = torch.cat([((end - start) / 2 * weights).clamp(min=1e-300).log() for start, end in halves])
    return values, sizes


def _hermite(fn: td.Distribution, nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss–Hermite: weights over the density at the nodes."""
    normal: Any = fn.base_dist if isinstance(fn, td.LogNormal) else fn
    where, weights = (torch.as_tensor(each) for each in _rule(nodes))
    shape = (-1, *[1] * len(fn.batch_shape))
    values = normal.loc + normal.scale * where.reshape(shape)
    values = values.exp() if isinstance(fn, td.LogNormal) else values
    return values, (weights / weights.sum()).log().reshape(shape) - fn.log_prob(values)


def _even(fn: td.Distribution, nodes: int, rough: Rough) -> tuple[Tensor, Tensor]:
    """Equal steps in the variable in which the density falls off on both sides, and no node at a round number."""
    ends = (-16.0, 4.5) if isinstance(fn, td.Gamma) else (-20.0, 20.0)
    edges = torch.linspace(*ends, 2 * nodes + 1)
    middle = ((edges[1:] + edges[:-1]) / 2).reshape(-1, *[1] * len(fn.batch_shape)).expand(-1, *fn.batch_shape)
    transform = td.transform_to(td.Gamma.support if isinstance(fn, td.Gamma) else td.constraints.unit_interval)
    values = transform(middle)
    return values, transform.log_abs_det_jacobian(middle, values) + (edges[1] - edges[0]).log()


@lru_cache
def _rule(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.hermite_e.hermegauss(nodes)


@lru_cache
def _legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(nodes)


FAMILIES = {
    "bernoulli": Family("Bernoulli", ("logits",), _finite, finite=True),
    "categorical": Family("Categorical", ("logits",), _finite, wide=1, finite=True),
    "one-hot": Family("OneHotCategorical", ("logits",), _finite, wide=1, own=1, finite=True),
    "normal": Family("Normal", ("loc", "scale"), _normal),
    "log-normal": Family("LogNormal", ("loc", "scale"), _normal),
    "gamma": Family("Gamma", ("concentration", "rate"), _even),
    "beta": Family("Beta", ("concentration1", "concentration0"), _even),
    "poisson": Family("Poisson", ("rate",), _counts, finite=True),
}


def distribution(family: Family, arguments: list[Tensor]) -> td.Distribution:
    """The distribution of torch's with these parameters, unchecked."""
    make = getattr(td, family.name)
    fn: td.Distribution = make(**dict(zip(family.arguments, arguments, strict=True)), validate_args=False)
    return fn
