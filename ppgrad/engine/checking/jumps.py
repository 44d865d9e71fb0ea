"""Where the cost of a program jumps as the value of a site moves: no slope tells of that."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints

from ppgrad.core import PpgradError, Unsupported
from ppgrad.core.distributions import element, unvalidated
from ppgrad.engine.checking.jump_search import Point, jumps
from ppgrad.engine.checking.rerun_errors import log_rerun_error
from ppgrad.engine.running.enumerating import PlatesUnknown, Summing
from ppgrad.engine.running.execution import run, sites_of
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.fixed_parameters import Traces, values_drawn
from ppgrad.engine.running.lanes import CannotVectorize, LaneTensors, vectorizable, vectorized
from ppgrad.engine.running.sampler import Sampler
from ppgrad.engine.running.site import Drawn, Site
from ppgrad.estimators.discrete.relaxation import as_value, category_logits

NARROW = 1e-5
"""A cost that rises within less of the way between two values of a discrete site counts as one that jumps."""

SELDOM = 1 / 256
"""The same of a continuous site: draws hit what is narrower too seldom to tell of its slope."""

MARGIN = 1e-3
"""How far from the values of a discrete site a line ends: a relaxed value never reaches them."""

DRAWS = 256
"""How many draws of a continuous site a line spans."""

logger = logging.getLogger("ppgrad")

Ends = Iterator[tuple[Tensor, Tensor]]


def check_continuous(executor: Executor, name: str, sampler: Sampler, traces: Traces, lines: int) -> None:
    """Raise if the cost jumps on a line between values of a discrete site, all else held as it was drawn.

    Args:
        executor: runs the program.
        name: the site.
        sampler, traces: of one run.
        lines: how many lines to walk.

    Raises:
        Unsupported: the cost jumps.
    """
    site = next(site for site in sites_of(*traces, sampler) if site.name == name)
    if _jumps_on(_between_values(site.fn, lines), executor, site, sampler, traces, NARROW):
        estimator = type(site.estimator).__name__
        raise Unsupported(
            f"{estimator} at site '{name}' runs the program with a relaxed value, and its cost jumps between the "
            "site's values: the program rounds it, or compares it with a threshold.\nChoose an estimator "
            f"that keeps values discrete: sites={{'{name}': LocalExpectation()}}."
        )


def jumps_at(executor: Executor, name: str, sampler: Sampler, traces: Traces, lines: int) -> bool:
    """Whether the cost jumps on a line between draws of a continuous site, all else held as it was drawn.

    Later draws are held as well: what jumps in one of them is a jump at its own site.
    """
    site = next(site for site in sites_of(*traces, sampler) if site.name == name)
    return _jumps_on(_between_draws(site.fn, lines), executor, site, sampler, traces, SELDOM)


def _jumps_on(ends: Ends, executor: Executor, site: Site, sampler: Sampler, traces: Traces, narrow: float) -> bool:
    values = {drawn: value.detach() for drawn, value in values_drawn(traces, sampler).items()}
    try:
        return any(jumps(partial(_points, executor, site, values, *pair), narrow) for pair in ends)
    except (ValueError, RuntimeError, AttributeError, PlatesUnknown) as error:  # no density at a value that is held
        log_rerun_error(f"It is not known whether the cost jumps as site '{site.name}' moves", error)
        return False


def _between_values(fn: TorchDistribution, count: int) -> Ends:
    """From the first category of each element to its last, then between random ones."""
    logits = category_logits(fn).detach()
    size = logits.shape[-1]
    first = torch.zeros(logits.shape[:-1], dtype=torch.long, device=logits.device)
    ends = [(first, first + size - 1)]
    for _ in range(count - 1):
        random = torch.randint(size, first.shape, device=first.device)
        ends.append((random, (random + torch.randint(1, max(size, 2), first.shape, device=first.device)) % size))
    for pair in ends:
        start, end = (torch.nn.functional.one_hot(index, size).to(logits.dtype) for index in pair)
        inside = [(1 - MARGIN) * weights + MARGIN / size for weights in (start, end)]
        yield as_value(fn, inside[0]), as_value(fn, inside[1])


def _between_draws(fn: TorchDistribution, count: int) -> Ends:
    """From the least to the greatest of many draws, each element one way or the other; of a vector, two draws."""
    with torch.no_grad():
        draws = fn.sample(torch.Size([DRAWS]))
    for i in range(count):
        if not _is_elementwise(fn):
            yield draws[2 * i], draws[2 * i + 1]
            continue
        low, high = draws.amin(0), draws.amax(0)
        turned = torch.rand(low.shape, device=low.device) < (0.5 if i else 0.0)
        yield torch.where(turned, high, low), torch.where(turned, low, high)


def _is_elementwise(fn: TorchDistribution) -> bool:
    """Whether the elements of a value may be put together from several values."""
    try:
        support = element(fn).support
    except NotImplementedError:
        return False
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return not constraints.is_dependent(support) and support.event_dim == 0  # type: ignore[no-untyped-call]


def _points(
    executor: Executor,
    site: Site,
    values: Mapping[str, Tensor],
    start: Tensor,
    end: Tensor,
    places: Sequence[float],
) -> list[Point]:
    """What is downstream of a site, at places on the line between two values of it."""
    shares = torch.tensor(places, dtype=start.dtype, device=start.device).reshape(-1, *[1] * start.dim())
    moved = (start + shares * (end - start)).requires_grad_()

    def one(token: Tensor | float, value: Tensor) -> tuple[Tensor, Tensor]:
        with LaneTensors(token, {}):
            return _downstream(executor, site, {**values, site.name: value})

    try:
        if not executor.vectorize:
            raise CannotVectorize("the program runs in a loop")
        with vectorizable():
            totals, sizes = vectorized(one, moved, lanes=len(places))
    except PpgradError:
        raise
    except Exception as error:
        logger.debug("Values on a line go one by one: %s", error)
        with pyro.validation_enabled(False):
            totals, sizes = (torch.stack(part) for part in zip(*(one(0.0, value) for value in moved), strict=True))
    slopes = torch.zeros_like(moved)
    if totals.requires_grad:
        (slopes,) = torch.autograd.grad(totals.sum(), [moved], materialize_grads=True)
    along = (slopes * (end - start)).reshape(len(places), -1).sum(1).tolist()
    steep = (slopes * moved.detach()).abs().reshape(len(places), -1).sum(1)
    reach = torch.finfo(totals.dtype).eps * (64 * sizes + 4 * steep)
    return [Point(*numbers) for numbers in zip(places, totals.tolist(), along, reach.tolist(), strict=True)]


def _downstream(executor: Executor, site: Site, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The sum of all that is downstream of a site, and of its absolute values."""
    held = _Held(values, site, executor.known.copies, executor.summing)
    sites = sites_of(*run(executor.program, held), held)
    costs = executor.setup.costs(sites)
    first = next(i for i, other in enumerate(sites) if other.name == site.name)
    terms = [cost for cost in costs[first:] if cost is not None]
    # A later draw's density is not a cost, but its score passes the cost's slope on.
    terms += [other.density for other in sites[first + 1 :] if other.is_random]
    # With weights of their own, so that jumps of two terms do not cancel.
    weighted = [(1 + 0.1 * i / len(terms)) * term.sum() for i, term in enumerate(terms)]
    zero = sites[first].value.new_zeros((), dtype=torch.get_default_dtype())
    sizes = [term.detach().abs().sum() for term in terms]
    return torch.stack([zero, *weighted]).sum(), torch.stack([zero, *sizes]).sum()


class _Held(Sampler):
    """Gives each random site the value that it had, and one site another."""

    def __init__(self, values: Mapping[str, Tensor], moved: Site, copies: bool, summing: Summing | None):
        Messenger.__init__(self)
        self.copies, self.given, self.parameters = copies, [], {}
        self.summing = summing
        self._values = values
        self._moved = moved
        self.drawn: dict[str, Drawn] = {}

    def _pyro_sample(self, message: Any) -> None:
        name = message["name"]
        if name == self._moved.name:
            message["fn"] = unvalidated(message["fn"])
        if message["done"] or message["is_observed"] or name not in self._values:
            return
        estimator = self._moved.estimator if name == self._moved.name else None
        self.drawn[name] = Drawn(estimator, {}, is_changed=True, in_branch=True)
        message["value"] = self._values[name]
        message["done"] = True
