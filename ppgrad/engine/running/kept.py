"""What is kept of each site of one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ppgrad.core import Estimator, InvalidProgram
from ppgrad.engine.running.site import Site
from ppgrad.engine.running.stacking import evaluate_together

_HALF = frozenset((torch.bfloat16, torch.float16))


def keep(sites: Sequence[Site], costs: Sequence[Tensor | None], together: bool) -> list[dict[str, Any]]:
    """The tensors of each site that the record is made of, without lane dimensions.

    With ``together`` densities that are alike are evaluated in one call.
    """
    if together:
        evaluate_together([site for site in sites if _is_scored(site)])
    return [_kept(site, cost) for site, cost in zip(sites, costs, strict=True)]


def _kept(site: Site, cost: Tensor | None) -> dict[str, Any]:
    tensors: dict[str, Any] = {} if cost is None else {"cost": _at_least_single(cost)}
    if site.kind == "reward" and not site.is_in_sum and not site.infer.get("predicted"):
        tensors["reward"] = _at_least_single(site.reward.detach())
    if site.is_random and site.active is not None:
        tensors["active"] = site.active.expand(site.fn.batch_shape)
    drawn = site.drawn
    if drawn is not None and drawn.log_weight is not None:
        tensors["log_weight"] = drawn.log_weight
    elif drawn is not None and _is_scored(site):
        tensors |= {"value": site.value, "log_prob": _at_least_single(site.density), "extras": dict(drawn.extras)}
        if site.context is not None:
            tensors["context"] = _tensors_only(site)
    return tensors


def _at_least_single(term: Tensor) -> Tensor:
    """A term that is to be added up, in single precision where it has less."""
    return term.float() if term.dtype in _HALF else term


def _is_scored(site: Site) -> bool:
    """Whether an estimator's surrogate wants the density of the value."""
    drawn = site.drawn
    if drawn is None or drawn.estimator is None or drawn.log_weight is not None or drawn.is_changed:
        return False
    return type(drawn.estimator).surrogate is not Estimator.surrogate


def _tensors_only(site: Site) -> Any:
    if all(isinstance(leaf, Tensor) for leaf in tree_leaves(site.context)):
        return site.context
    raise InvalidProgram(f"The context of site '{site.name}' holds something that is not a tensor. Pass tensors only.")
