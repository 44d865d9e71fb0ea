"""What estimators of discrete sites share: how to look at a Bernoulli or a Categorical, element by element."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent

from ppgrad.core.distributions import distribution_name, without_mask
from ppgrad.core.estimator import SiteInfo


def element(fn: TorchDistribution) -> TorchDistribution:
    """``fn`` without masks and ``to_event``: the distribution of its elements."""
    fn = without_mask(fn)
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def not_bernoulli(fn: TorchDistribution) -> str | None:
    """Why ``fn`` is no Bernoulli, or None if it is one."""
    return None if isinstance(element(fn), Bernoulli) else f"{distribution_name(fn)} is not Bernoulli"


def not_finite(fn: TorchDistribution) -> str | None:
    """Why ``fn`` is neither Bernoulli nor Categorical, or None if it is one of them."""
    if isinstance(element(fn), Bernoulli | Categorical):
        return None
    return f"{distribution_name(fn)} is neither Bernoulli nor Categorical"


def support(fn: TorchDistribution) -> Tensor:
    """Every value of an element, shape ``(n,)``."""
    values: Tensor = element(fn).enumerate_support(expand=False)
    return values.reshape(-1)


def log_probabilities(fn: TorchDistribution) -> Tensor:
    """The log-probability of every value of every element, shape ``(n, *batch, *event)``."""
    base = element(fn)
    values = support(fn).reshape(-1, *[1] * len(fn.shape()))
    log_probs: Tensor = base.log_prob(values.expand(-1, *fn.shape()))
    return log_probs


def logits(fn: TorchDistribution) -> Tensor:
    """The logits of a Bernoulli's elements, shape batch + event, with a graph to the parameters."""
    return element(fn).logits.expand(fn.shape())


def uniform(fn: TorchDistribution) -> Tensor:
    """Uniform noise for every element, strictly inside of (0, 1)."""
    like = logits(fn)
    tiny = torch.finfo(like.dtype).eps
    return torch.rand(like.shape, dtype=like.dtype, device=like.device).clamp(tiny, 1 - tiny)


def over_event(term: Tensor, event_dim: int) -> Tensor:
    """Sum a term over the dimensions of one event."""
    return term.sum([*range(-event_dim, 0)]) if event_dim else term


def for_event(signal: Tensor, event_dim: int) -> Tensor:
    """A signal, with ones for the dimensions of one event."""
    return signal.reshape(*signal.shape, *[1] * event_dim)


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
