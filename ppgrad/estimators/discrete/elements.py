"""What estimators of discrete sites share: how to look at their elements and the values that these can take.

An element is one Bernoulli, Categorical, OneHotCategorical or Binomial of a site. What belongs to
each element has the shape batch + event; the dimension that one OneHotCategorical fills becomes one.
"""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, OneHotCategorical

from ppgrad.core.distributions import FINITE, distribution_name, element, element_shape, is_possible, without_mask
from ppgrad.core.site_info import SiteInfo

LEAST_LOGIT = -1e4
"""The log-probability of what cannot happen, finite so that times 0 it is 0; exp gives 0 in every precision."""


def not_categorical(fn: TorchDistribution) -> str | None:
    """Why ``fn`` is neither Bernoulli nor Categorical, one-hot or not; None if it is one of them."""
    if isinstance(element(fn), Bernoulli | Categorical | OneHotCategorical):
        return None
    return f"{distribution_name(fn)} is neither Bernoulli, Categorical nor OneHotCategorical"


def not_bernoulli(fn: TorchDistribution) -> str | None:
    """Why ``fn`` is no Bernoulli, or None if it is one."""
    return None if isinstance(element(fn), Bernoulli) else f"{distribution_name(fn)} is not Bernoulli"


def not_finite(fn: TorchDistribution) -> str | None:
    """Why the values of ``fn`` cannot be listed, or None if they can."""
    base = element(fn)
    if not isinstance(base, FINITE):
        return f"{distribution_name(fn)} is neither Bernoulli, Categorical, OneHotCategorical nor Binomial"
    if isinstance(base, Binomial) and bool((base.total_count != base.total_count.max()).any()):
        return "its elements are Binomial with different total counts"
    return None


def support(fn: TorchDistribution) -> Tensor:
    """Every value of an element, shape ``(n,)``, or ``(n, n)`` where one is a vector."""
    base = element(fn)
    values: Tensor = base.enumerate_support(expand=False)
    return values.reshape(-1, *base.event_shape)


def log_probabilities(fn: TorchDistribution) -> Tensor:
    """The log-probability of every value of every element, shape ``(n, *batch, *event)``; `LEAST_LOGIT` for none."""
    base, values = element(fn), support(fn)
    values = values.reshape(len(values), *[1] * (len(fn.shape()) - len(base.event_shape)), *base.event_shape)
    values = values.expand(-1, *fn.shape())
    log_probs: Tensor = torch.where(is_possible(fn, values), base.log_prob(values), LEAST_LOGIT)
    return log_probs.reshape(-1, *element_shape(fn))


def possible_or(index: Tensor, drawn: Tensor, log_probs: Tensor) -> Tensor:
    """``index``, and the index drawn in the place of what cannot happen, of which a program may make no sense.

    Args:
        index: of values, shape ``(m, *elements)``.
        drawn: of the value drawn, shape elements.
        log_probs: as `log_probabilities` gives them.
    """
    return torch.where(log_probs.gather(0, index) > LEAST_LOGIT, index, drawn)


def index_of(fn: TorchDistribution, value: Tensor) -> Tensor:
    """Where in the support each element of ``value`` is, shape batch + event."""
    base = element(fn)
    if isinstance(base, OneHotCategorical):
        return value.argmax(-1, keepdim=True)
    return value.long()


def value_at(fn: TorchDistribution, index: Tensor) -> Tensor:
    """The values at indices of shape ``(…, *batch, *event)``: the inverse of `index_of`."""
    base, values = element(fn), support(fn)
    if isinstance(base, OneHotCategorical):
        return values.index_select(0, index.reshape(-1)).reshape(*index.shape[:-1], -1)
    return index.to(values.dtype)


def other_values(fn: TorchDistribution, value: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The values that were not drawn, each with its probability, which has a graph to the parameters.

    The value drawn takes the place of those that cannot happen, whose probability is 0.
    """
    drawn, log_probs = index_of(fn, value), log_probabilities(fn)
    if len(log_probs) == 1:
        return []
    others = torch.stack([(drawn + i) % len(log_probs) for i in range(1, len(log_probs))])
    values = value_at(fn, possible_or(others, drawn, log_probs))
    return [*zip(log_probs.gather(0, others).exp().unbind(), values.unbind(), strict=True)]


def logits(fn: TorchDistribution) -> Tensor:
    """The logits of a Bernoulli's elements, shape batch + event, with a graph to the parameters."""
    return element(fn).logits.expand(fn.shape())


def uniform(like: Tensor) -> Tensor:
    """Uniform noise in the shape of a tensor, strictly inside of (0, 1)."""
    tiny = torch.finfo(like.dtype).eps
    return torch.rand(like.shape, dtype=like.dtype, device=like.device).clamp(tiny, 1 - tiny)


def gumbel(like: Tensor) -> Tensor:
    """Gumbel noise in the shape of a tensor."""
    return -(-uniform(like).log()).log()


def no_mean(fn: TorchDistribution) -> str | None:
    """Why a program cannot be run at the mean of ``fn``, or None if it can."""
    try:
        finite = bool(torch.isfinite(without_mask(fn).mean).all())
    except NotImplementedError:
        finite = False
    return None if finite else f"{distribution_name(fn)} has no mean that could be its value"


def needs_particles(site: SiteInfo, name: str) -> str | None:
    """Why an estimator that compares particles cannot serve ``site``, or None if it can."""
    if site.num_importance > 1:
        return f"{name} compares particles, and here they share their cost in an importance-weighted bound"
    return None if site.num_particles >= 2 else f"{name}() compares particles; write num_particles=2 or more"


def mean_of_others(values: Tensor) -> Tensor:
    """For each particle the mean over the others; zero where there are none (particles came different ways)."""
    count = len(values)
    return (values.sum(0, keepdim=True) - values) / (count - 1) if count > 1 else torch.zeros_like(values)
