"""What estimators and the engine ask of a Pyro distribution."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import MaskedDistribution, TorchDistributionMixin
from torch import Tensor
from torch.distributions import Distribution, Independent, Transform

from ppgrad.core.errors import Unsupported

FINITE = (
    torch.distributions.Bernoulli,
    torch.distributions.Categorical,
    torch.distributions.OneHotCategorical,
    torch.distributions.Binomial,
)
"""The distributions whose values estimators list."""

_WRAPPERS = (Independent, MaskedDistribution, dist.torch_distribution.ExpandedDistribution)


def distribution_name(fn: Any) -> str:
    """The class name a person would use, looking through ``to_event``, ``mask`` and ``expand``.

    A class that only changes how another one draws says so by ``known_as``.
    """
    while hasattr(fn, "base_dist") and isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return str(getattr(type(fn), "known_as", type(fn).__name__))


def without_mask(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """``fn`` as it is sampled: a mask leaves a draw out of a cost, it does not undo the draw."""
    if isinstance(fn, MaskedDistribution):
        return without_mask(fn.base_dist)
    if isinstance(fn, Independent):
        base = without_mask(fn.base_dist)
        return fn if base is fn.base_dist else dist.Independent(base, fn.reinterpreted_batch_ndims)
    return fn


def tensor_of(fn: Distribution) -> Tensor:
    """A tensor that ``fn`` is made of, of real numbers if there is one: its device is that of the draws."""
    found = sorted(_tensors_of(fn), key=torch.is_floating_point)
    return found[-1] if found else torch.zeros(())


def _tensors_of(fn: Distribution) -> Iterator[Tensor]:
    for value in vars(fn).values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Distribution):
            yield from _tensors_of(value)


def unvalidated(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """A copy of ``fn`` that evaluates its density outside of its support, too."""
    other = copy.copy(fn)
    other._validate_args = False
    if hasattr(other, "base_dist"):
        other.base_dist = unvalidated(other.base_dist)
    return other


def detached(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """A copy of ``fn`` whose parameters pass no gradient on."""
    return _detached(fn, {})


def _detached(item: Any, memo: dict[int, Any]) -> Any:
    if isinstance(item, Tensor):
        return item.detach()
    if isinstance(item, list | tuple) and not isinstance(item, torch.Size):
        return type(item)(_detached(part, memo) for part in item)
    if not isinstance(item, Distribution | Transform | torch.nn.Module):
        return item
    if id(item) not in memo:
        if isinstance(item, torch.nn.Module) and any(True for _ in item.parameters()):
            raise Unsupported(
                f"{type(item).__name__} holds parameters of its own, which cannot be stopped in its density."
            )
        memo[id(item)] = other = copy.copy(item)
        vars(other).update({key: _detached(part, memo) for key, part in vars(item).items()})
    return memo[id(item)]


def sampled(fn: dist.TorchDistribution) -> Tensor:
    """A draw without a graph.

    A Categorical of logits is drawn as the category whose exponential clock, of its probability as rate, rings first:
    for a small one that is faster than torch's ``multinomial``, which checks probabilities.

    Source: Maddison, Tarlow & Minka (2014), A* sampling, section 2.
    """
    with torch.no_grad():
        logits = vars(fn).get("logits") if type(fn) is dist.Categorical else None
        if logits is None or fn._param is not logits or logits.dtype not in (torch.float32, torch.float64):
            value: Tensor = fn.rsample() if fn.has_rsample else fn.sample()
            return value.detach()
        clocks = torch.empty_like(logits).exponential_().clamp(min=torch.finfo(logits.dtype).tiny)
        return (clocks.log_() - logits).argmin(-1)


def stand_ins(fn: dist.TorchDistribution, value: Tensor) -> list[Tensor]:
    """The tensors that a density of ``fn`` may be computed from: the value, and the raw one that it remembers."""
    raw = getattr(without_mask(fn), "raw", None)
    return [value, raw(value)] if callable(raw) else [value]


def estimates_entropy(fn: dist.TorchDistribution) -> bool:
    """Whether ``entropy()`` of ``fn`` is a random estimate, as that of a mixture."""
    return bool(getattr(without_mask(fn), "estimates_entropy", False))


def is_deterministic(fn: object) -> bool:
    """Whether the value of ``fn`` is a function of its parameters (a Delta)."""
    return distribution_name(fn) == "Delta"


def is_learnable(fn: dist.TorchDistribution) -> bool:
    """Whether the density of ``fn``, masks left aside, depends on something that requires a gradient."""
    fn = without_mask(fn)
    with torch.enable_grad():
        try:
            return requires_gradient(fn.log_prob(fn.sample().detach()))
        except (NotImplementedError, KeyError):
            return bool(fn.has_rsample) and requires_gradient(fn.rsample())


def requires_gradient(tensor: Tensor) -> bool:
    """Whether a gradient is recorded of a tensor, also of one that stands for a lane of another inside of vmap."""
    functorch = torch._C._functorch
    while functorch.is_batchedtensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor.requires_grad or functorch.is_gradtrackingtensor(tensor)


def is_partly_reparameterized(fn: dist.TorchDistribution) -> bool:
    """Whether ``rsample`` of ``fn`` needs a score term beside it (Pyro's rejection samplers)."""
    inner = fn
    while isinstance(inner, (Independent, MaskedDistribution)):
        inner = inner.base_dist
    return type(inner).score_parts is not TorchDistributionMixin.score_parts


def is_straight_through(fn: dist.TorchDistribution) -> bool:
    """Whether ``rsample`` of ``fn`` passes a gradient through a discrete value."""
    return distribution_name(fn).endswith("StraightThrough")


def is_rounded(fn: dist.TorchDistribution) -> bool:
    """Whether ``fn`` rounds its values, and its density is that of the value before."""
    return distribution_name(fn).startswith("Relaxed") and is_straight_through(fn)


def undifferentiable_density(fn: dist.TorchDistribution) -> str | None:
    """Why the density of ``fn`` has a value and no gradient, or None if it has both."""
    name = distribution_name(fn)
    return f"Pyro's density of {name} overwrites what its gradient needs" if name == "GaussianScaleMixture" else None


def not_reparameterized(fn: dist.TorchDistribution) -> str | None:
    """Why no gradient may go through a sample of ``fn``, or None if one may."""
    name = distribution_name(fn)
    if not fn.has_rsample:
        return f"{name} has no reparameterized sample"
    if is_straight_through(fn):
        return f"{name} passes a biased gradient through a discrete value"
    if is_partly_reparameterized(fn):
        return f"{name} is only partly reparameterized"
    return None


def leaves(outputs: Tensor) -> list[Tensor]:
    """The leaf tensors that require a gradient and that ``outputs`` was computed from."""
    if outputs.grad_fn is None:
        return [outputs] if outputs.requires_grad else []
    found: dict[int, Tensor] = {}
    seen: set[Any] = set()
    stack: list[Any] = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found[id(variable)] = variable
        stack.extend(parent for parent, _ in node.next_functions)
    return list(found.values())


def element(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """``fn`` without masks and ``to_event``: the distribution of its elements."""
    fn = without_mask(fn)
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def given_probabilities(fn: dist.TorchDistribution) -> Tensor | None:
    """The ``probs`` that the elements of a discrete ``fn`` were made from; None for logits."""
    base = element(fn)
    base = getattr(base, "_categorical", base)
    probs: Tensor | None = vars(base).get("probs")
    return probs if probs is not None and probs is vars(base).get("_param") else None


def is_possible(fn: dist.TorchDistribution, value: Tensor) -> Tensor:
    """Where Bernoulli, Categorical, OneHotCategorical or Binomial elements can be ``value``, one number an element.

    They cannot where its probability is 0 in their precision, as that of a choice with a logit of −∞ or −1e8 is. Of
    ``probs`` that are 0 torch's density does not say so: it is that of the least number that 1 can be told from.
    """
    base, probs = element(fn), given_probabilities(fn)
    if probs is None:
        possible: Tensor = base.log_prob(value).exp() > 0
    elif isinstance(base, torch.distributions.Categorical):
        choices = probs.expand(*value.shape, probs.shape[-1])
        possible = choices.gather(-1, value.long().unsqueeze(-1)).squeeze(-1) > 0
    elif isinstance(base, torch.distributions.OneHotCategorical):
        possible = (probs * value).sum(-1) > 0
    else:
        possible = ((value == 0) | (probs > 0)) & ((value == getattr(base, "total_count", 1)) | (probs < 1))
    return possible


def mode(fn: dist.TorchDistribution) -> Tensor:
    """The likeliest value of a distribution, discrete or not, without a graph.

    Raises:
        NotImplementedError: it has none that torch knows.
    """
    base = element(fn)
    if isinstance(base, torch.distributions.Bernoulli):  # torch's is NaN at p = ½
        return (base.probs >= 0.5).to(base.probs.dtype).expand(fn.shape())
    found: Tensor = without_mask(fn).mode
    return found.detach()


def likeliest_where(condition: Tensor, fn: dist.TorchDistribution, value: Tensor) -> Tensor:
    """``value``, and where ``condition``, of the batch shape, the mode of a ``fn`` of `FINITE` elements."""
    if not isinstance(element(fn), FINITE):
        return value
    return torch.where(for_event(condition, len(fn.event_shape)), mode(fn), value)


def element_shape(fn: dist.TorchDistribution) -> torch.Size:
    """Batch + event, with ones for the dimensions that one element fills."""
    shape = fn.shape()
    part = len(element(fn).event_shape)
    return torch.Size([*shape[: len(shape) - part], *[1] * part])


def over_event(term: Tensor, event_dim: int) -> Tensor:
    """Sum a term over the dimensions of one event."""
    return term.sum([*range(-event_dim, 0)]) if event_dim else term


def for_event(signal: Tensor, event_dim: int) -> Tensor:
    """A signal, with ones for the dimensions of one event."""
    return signal.reshape((*signal.shape, *[1] * event_dim))
