"""The checks of a run's distributions, after the run and for all sites at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ppgrad.engine.running.site import Site

_CHECKABLE = {
    dist.Bernoulli,
    dist.Beta,
    dist.Categorical,
    dist.Cauchy,
    dist.Delta,
    dist.Dirichlet,
    dist.Exponential,
    dist.Gamma,
    dist.Laplace,
    dist.Normal,
    dist.Poisson,
    dist.StudentT,
    dist.Unit,
}
"""Classes that check their parameters against ``arg_constraints``, and nothing else."""


class Suspect(Exception):
    """A run whose distributions may be out of order, or cannot be checked afterwards."""


def can_be_checked_after(sites: Sequence[Site]) -> bool:
    """Whether `check_run` finds nothing in a run that the distributions have checked themselves."""
    try:
        check_run(sites)
    except Suspect:
        return False
    return True


def check_run(sites: Sequence[Site]) -> None:
    """Raise `Suspect` unless every check passes that the distributions would have made while they ran.

    The host waits once for the answer, whatever the number of sites.
    """
    groups: dict[Any, list[Tensor]] = {}
    passed: list[Tensor] = []
    for site in sites:
        if site.kind == "reward":
            continue
        fn = site.fn.base_dist if type(site.fn) is dist.Independent else site.fn
        kind = type(fn)
        if not _is_checkable(kind):  # type: ignore[arg-type]
            raise Suspect
        for name, value in _parameters(fn):
            groups.setdefault((kind, name, value.shape, value.dtype, value.device), []).append(value)
        if site.kind in ("observed", "replayed") and not site.is_relaxed:
            passed.append(_is_in_support(site))
    with torch.no_grad():
        passed += [_constraints(key[0])[key[1]].check(torch.stack(values)).all() for key, values in groups.items()]
        if not _all(passed):
            raise Suspect


@cache
def _is_checkable(kind: Any) -> bool:
    """Whether a class, or the class that it inherits its checks from, is one of those."""
    return any(
        base in _CHECKABLE and kind.__init__ is base.__init__ and kind.arg_constraints is base.arg_constraints
        for base in kind.__mro__
    )


def _all(passed: Sequence[Tensor]) -> bool:
    by_device: dict[torch.device, list[Tensor]] = {}
    for one in passed:
        by_device.setdefault(one.device, []).append(one)
    return all(bool(torch.stack(there).all()) for there in by_device.values())


def _parameters(fn: Any) -> Iterator[tuple[str, Tensor]]:
    given = vars(fn).get("_param")
    for name in _constraints(type(fn)):  # type: ignore[arg-type]
        value = getattr(fn, name) if given is None else vars(fn).get(name)
        if given is None or value is given:
            yield name, value


@cache
def _constraints(kind: Any) -> Mapping[str, Any]:
    """What each parameter of a class must keep to, but for what depends on another."""
    every = kind.arg_constraints.items()
    return {name: limit for name, limit in every if not constraints.is_dependent(limit)}  # type: ignore[no-untyped-call]


def _is_in_support(site: Site) -> Tensor:
    """What the distribution itself checks of a value: the shape, and the support."""
    fn, value = site.fn, site.value
    if not isinstance(value, Tensor) or value.shape[value.dim() - len(fn.event_shape) :] != fn.event_shape:
        raise Suspect
    try:
        torch.broadcast_shapes(value.shape, fn.shape())  # type: ignore[no-untyped-call]
        valid: Tensor = fn.support.check(value)
    except (RuntimeError, NotImplementedError) as error:
        raise Suspect from error
    return valid.all()
