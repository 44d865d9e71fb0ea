"""What estimators of discrete sites share: how to look at their elements and the values that these can take.

An element is one Bernoulli, Categorical, OneHotCategorical or Binomial of a site. What belongs to
each element has the shape batch + event; the dimension that one OneHotCategorical fills becomes one.
"""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, OneHotCategorical

from ppgrad.core.distributions import distribution_name, element, element_shape, without_mask
from ppgrad.core.site_info import SiteInfo

LEAST_LOGIT = -1e4
"""The logit of what cannot happen: its probability is 0 in every precision, and it stays finite."""


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
    if not isinstance(base, Bernoulli | Categorical | OneHotCategorical | Binomial):
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
    """The log-probability of every value of every element, shape ``(n, *batch, *event)``."""
    base, values = element(fn), support(fn)
    values = values.reshape(len(values), *[1] * (len(fn.shape()) - len(base.event_shape)), *base.event_shape)
    log_probs: Tensor = base.log_prob(values.expand(-1, *fn.shape()))
    return log_probs.reshape(-1, *element_shape(fn))


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
    """The values that were not drawn, each with its probability, which has a graph to the parameters."""
    drawn, probabilities = index_of(fn, value), log_probabilities(fn).exp()
    others = [(drawn + i) % len(probabilities) for i in range(1, len(probabilities))]
    return [(probabilities.gather(0, other.unsqueeze(0)).squeeze(0), value_at(fn, other)) for other in others]


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
