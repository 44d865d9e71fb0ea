"""Discrete values relaxed: each element as one-hot weights over its categories, perturbed by Gumbel noise.

A Bernoulli is looked at as two categories, so that one set of formulas serves it, Categorical and
OneHotCategorical. Source: Jang et al. (2017), Maddison et al. (2017); conditional noise: Tucker et
al. (2017), appendix C.
"""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, OneHotCategorical
from torch.nn import functional

from ppgrad.core.distributions import distribution_name, element, given_probabilities
from ppgrad.estimators.discrete.elements import LEAST_LOGIT


def not_relaxable(fn: TorchDistribution) -> str | None:
    """Why the values of ``fn`` cannot be relaxed, or None if they can."""
    base = element(fn)
    if isinstance(base, Bernoulli | OneHotCategorical):
        return None
    if isinstance(base, Categorical):
        return "a Categorical's value is an index, with nothing between; write OneHotCategorical"
    return f"{distribution_name(fn)} is neither Bernoulli nor OneHotCategorical"


def category_logits(fn: TorchDistribution) -> Tensor:
    """Normalized log-probabilities of each element's categories, elements + (categories,); none below `LEAST_LOGIT`."""
    logits, probs = _logits(fn), given_probabilities(fn)
    if probs is None:
        possible = logits.exp() > 0
    else:
        possible = (torch.stack([1 - probs, probs], -1) if isinstance(element(fn), Bernoulli) else probs) > 0
    return torch.where(possible, logits, LEAST_LOGIT)


def _logits(fn: TorchDistribution) -> Tensor:
    base = element(fn)
    if isinstance(base, Bernoulli):
        logits = base.logits.expand(fn.shape())
        return torch.stack([functional.logsigmoid(-logits), functional.logsigmoid(logits)], -1)
    elements = fn.shape()[:-1] if isinstance(base, OneHotCategorical) else fn.shape()
    logits = base.logits
    return logits.expand(*elements, logits.shape[-1])


def exponential_noise(logits: Tensor) -> Tensor:
    """Exponential(1) noise, which minus its logarithm is Gumbel noise."""
    uniform = torch.rand(logits.shape, dtype=logits.dtype, device=logits.device)
    return -torch.log1p(-uniform).clamp(max=-torch.finfo(logits.dtype).tiny)


def perturbed(logits: Tensor, noise: Tensor) -> Tensor:
    """Gumbel-perturbed logits; their argmax is a draw."""
    return logits - noise.log()


def perturbed_given(logits: Tensor, weights: Tensor, noise: Tensor) -> Tensor:
    """Perturbed logits drawn again given that their argmax is the one-hot ``weights``."""
    top = (noise * weights).sum(-1, keepdim=True).log()
    return -torch.where(weights > 0, top, torch.logaddexp(noise.log() - logits, top))


def one_hot_argmax(values: Tensor) -> Tensor:
    """One-hot weights of the largest entry."""
    return functional.one_hot(values.argmax(-1), values.shape[-1]).to(values.dtype)


def as_value(fn: TorchDistribution, weights: Tensor) -> Tensor:
    """The site's value for weights over categories; of a Categorical only for one-hot ones."""
    base = element(fn)
    if isinstance(base, Bernoulli):
        return weights[..., 1]
    return weights if isinstance(base, OneHotCategorical) else weights.argmax(-1)


def relaxed_log_prob(fn: TorchDistribution, value: Tensor) -> Tensor:
    """log p, linear in the weights between its values: Σ_v weight(v) log p(v), where 0 · −∞ is 0."""
    if isinstance(fn, MaskedDistribution):
        return scale_and_mask(relaxed_log_prob(fn.base_dist, value), mask=fn._mask)
    base = element(fn)
    if not isinstance(base, Bernoulli | OneHotCategorical):
        log_prob: Tensor = fn.log_prob(value)
        return log_prob
    if isinstance(base, Bernoulli):
        value = torch.stack([1 - value, value], -1)
    logits = _logits(fn)
    impossible = logits == -float("inf")
    terms = value * logits.masked_fill(impossible, 0.0)
    terms = terms.masked_fill(impossible & (value != 0), -float("inf")).sum(-1)
    elements = terms.dim() - len(fn.batch_shape)
    return terms.sum([*range(-elements, 0)]) if elements else terms
