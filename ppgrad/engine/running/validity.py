"""The checks of a run's distributions, after the run and for all sites at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ppgrad.core import OutOfSupport
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


def may_leave(sites: Sequence[Site]) -> frozenset[str]:
    """The sites at which a value that the program brings could lie outside of the support, and is checked if it does.

    Not those of real numbers, nor those whose guide has the same support.
    """
    guided = {site.name: _support(site.fn) for site in sites if site.in_guide}
    brought = [site for site in sites if site.kind in ("observed", "replayed") and _is_validated(site.fn)]
    return frozenset(
        site.name
        for site in brought
        if _support(site.fn) not in (None, constraints.real) and _support(site.fn) is not guided.get(site.name)
    )


def _is_validated(fn: Any) -> bool:
    """Whether a distribution checks the values whose density it is asked for."""
    return bool(fn._validate_args if not hasattr(fn, "base_dist") else _is_validated(fn.base_dist))


def outside(names: Sequence[str]) -> OutOfSupport:
    """The error of a value outside of the support of one of the sites ``names``."""
    sites = "Site " + " or ".join(f"'{name}'" for name in names)
    return OutOfSupport(
        f"{sites}: some value lies outside of the support of the model's distribution, or has probability 0 there. "
        "Let the guide draw from a distribution with the model's support, such as LogNormal for positive values, or "
        "Beta for those between 0 and 1, and observe values inside of it."
    )


def lies_outside(site: Site) -> bool:
    """Whether a value that the program brings to a site is finite, and lies outside of the support."""
    if site.kind not in ("observed", "replayed") or site.is_relaxed or _support(site.fn) is None:
        return False
    inside: Tensor = site.fn.support.check(site.value)
    return bool(torch.isfinite(site.value).all()) and not bool(inside.all())


def _support(fn: Any) -> Any:
    """The constraint that a value's elements keep to; None where a distribution has none."""
    try:
        support = fn.support
    except NotImplementedError:
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


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
