"""Alternatives: the program run again with another value at one site."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ppgrad.core import Draw, Estimator, Plates, PpgradError, Signal, Unsupported, sum_lane
from ppgrad.core.distributions import element
from ppgrad.engine.dependence.dependence import Dependence
from ppgrad.engine.dependence.sums import Sums
from ppgrad.engine.running.sampler import Branch
from ppgrad.engine.running.site import Site


@dataclass(frozen=True)
class Run:
    """The sites of one run in program order, and of each the tensors that it keeps, lanes in front."""

    sites: list[Site]
    tensors: list[dict[str, Any]]

    @property
    def depth(self) -> int:
        """The number of plate dimensions of the deepest term."""
        terms = (kept[key] for kept in self.tensors for key in ("cost", "log_prob", "log_weight") if key in kept)
        return max((term.dim() - 2 for term in terms), default=0)

    @property
    def structure(self) -> Any:
        """What two runs must have in common to be stacked."""
        return tuple(
            (site.name, site.kind, site.plates, site.sequence, tuple(x.shape for x in tree_leaves(kept)))
            for site, kept in zip(self.sites, self.tensors, strict=True)
        )


class Replayed(Protocol):
    """What is needed of an entry of a record."""

    @property
    def name(self) -> str: ...
    @property
    def draw(self) -> Draw | None: ...


class ReplayedRecord(Protocol):
    """What is needed of a record."""

    @property
    def entries(self) -> Sequence[Replayed]: ...
    @property
    def dependence(self) -> Dependence: ...
    def downstream(self, detached: bool = False) -> list[Sums]: ...
    def with_scores(self) -> ReplayedRecord: ...


def attach_alternatives(
    run: Run,
    record: ReplayedRecord,
    replay: Callable[[Branch], ReplayedRecord],
    count: Callable[[str, int], None],
    apart: Sequence[Plates] | None,
    in_vmap: bool,
    explains: bool,
) -> None:
    """Keep beside each site that has alternatives the downstream cost of each, and of the value drawn.

    Args:
        run: the program as drawn; its tensors gain ``alternatives`` and ``base``.
        record: of that run.
        replay: runs the program again with one site changed.
        count: is told how many runs a site needs, before the first.
        apart: for each site the plates whose slices have numbers of their own under an objective that is no sum: all
            costs of a slice count for each of its elements. None where costs add up.
        in_vmap: all of this runs inside of an enclosing vmap, where torch.autograd.grad cannot.
        explains: an error in a branch is the program's, and not vmap's.
    """
    drawn_costs = record.downstream()
    for i, site in enumerate(run.sites):
        estimator, drawn = site.estimator, site.drawn
        if estimator is None or drawn is None or not drawn.alternatives:
            continue
        joint = frozenset() if apart is None else site.plates - apart[i]
        coupled: Plates = frozenset()
        elements: list[Tensor | None] = [None]
        if estimator.needs.element_by_element:
            coupled = record.dependence.coupled(i) if apart is None else joint
            elements = list(_elements(site, coupled, run.tensors[i]["value"].device))
        count(site.name, drawn.alternatives * len(elements))
        if apart is not None and estimator.needs.relaxed:
            _check_no_scores_later(site, estimator, record.entries[i + 1 :])
        scope = _Scope(site, coupled if apart is None else joint, estimator)
        kept = run.tensors[i]
        lanes = kept["log_prob"].shape[:2]
        kept["base"] = scope.reduced(drawn_costs[i], kept["log_prob"])
        kept["alternatives"], kept["relaxed"], kept["gradients"] = [], [], []
        like = torch.zeros(*lanes, *site.fn.shape(), dtype=kept["value"].dtype, device=kept["value"].device)
        for alternative in range(drawn.alternatives):
            branches = [Branch(site.name, alternative, mask) for mask in elements]
            with _relaxation_explained(site, estimator) if explains else nullcontext():
                if estimator.needs.slopes:
                    costs, gradient = _differentiated(branches[0], scope, replay, like, in_vmap)
                    kept["gradients"].append(gradient)
                else:
                    with torch.set_grad_enabled(torch.is_grad_enabled() and estimator.needs.relaxed):
                        costs = [scope.downstream(replay(branch)) for branch in branches]
            kept["alternatives"].append(
                _assembled(elements, [scope.reduced(parts, kept["log_prob"]) for parts in costs])
            )
            if estimator.needs.relaxed:
                kept["relaxed"].append(_total(costs[0], kept["log_prob"]))


def _check_no_scores_later(site: Site, estimator: Estimator, later: Sequence[Replayed]) -> None:
    """Where the objective is no sum, a relaxed cost cannot pass a gradient on through a later score."""
    for entry in later:
        if entry.draw is not None:
            name = type(estimator).__name__
            raise Unsupported(
                f"{name} cannot serve site '{site.name}' under this objective, since the later site '{entry.name}' has "
                f"a score.\nChoose LocalExpectation() for it: sites={{'{site.name}': LocalExpectation()}}."
            )


@contextmanager
def _relaxation_explained(site: Site, estimator: Estimator) -> Iterator[None]:
    try:
        yield
    except PpgradError:
        raise
    except Exception as error:
        if not (estimator.needs.relaxed or estimator.needs.slopes):
            raise
        raise Unsupported(cannot_relax(site.name, estimator, error)) from error


def cannot_relax(name: str, estimator: Estimator, error: Exception) -> str:
    """What to say where a program fails at a value between those of a site's distribution."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return (
        f"{type(estimator).__name__} at site '{name}' runs the program with a relaxed value, and it cannot "
        f"take one ({reason}).\nChoose an estimator that keeps values discrete: "
        f"sites={{'{name}': LocalExpectation()}}."
    )


def event_dim_of(site: Site) -> int:
    """How many dimensions one event of a site has."""
    return len(site.fn.event_shape)


def _elements(site: Site, coupled: Plates, device: torch.device) -> Iterator[Tensor | None]:
    """Masks of shape batch + event, one for each set of elements that may change together."""
    shape = site.fn.shape()
    batch = len(site.fn.batch_shape)
    dims = [batch + plate.dim for plate in coupled]
    dims += [batch + dim for dim in range(_element_dims(site.fn))]
    if math.prod(shape[dim] for dim in dims) == 1:
        yield None
        return
    for place in itertools.product(*(range(shape[dim]) for dim in dims)):
        mask = torch.ones(shape, dtype=torch.bool, device=device)
        for dim, index in zip(dims, place, strict=True):
            axis = torch.arange(shape[dim], device=device) == index
            mask &= axis.reshape([-1 if d == dim else 1 for d in range(len(shape))])
        yield mask


def _element_dims(fn: TorchDistribution) -> int:
    """How many dimensions of an event count elements, and not the parts of one."""
    return len(fn.event_shape) - len(element(fn).event_shape)


class _Scope:
    """Which costs count for the alternatives of a site, and in what shape."""

    def __init__(self, site: Site, coupled: Plates, estimator: Estimator):
        self._site = site
        self._plates = site.plates - coupled
        self._by_element = estimator.needs.element_by_element
        self._relaxes = estimator.needs.relaxed
        self._batch = len(site.fn.batch_shape)

    def downstream(self, record: ReplayedRecord) -> Sums:
        """The costs downstream of the changed site in its branch."""
        if self._relaxes:
            record = record.with_scores()
        place = next(i for i, entry in enumerate(record.entries) if entry.name == self._site.name)
        return record.downstream()[place]

    def reduced(self, parts: Sums, like: Tensor) -> Tensor:
        """``parts`` summed to the plates whose elements are apart: lanes + batch (+ ones for the event).

        With no parts it is a zero of the dtype and the device of ``like``.
        """
        total = Signal(parts, self._plates, like=like).value
        depth = min(self._batch, total.dim() - 2)
        shape = total.shape[total.dim() - depth :]
        missing = self._batch - depth
        event = [1] * event_dim_of(self._site) if self._by_element else []
        return total.reshape(*total.shape[:2], *[1] * missing, *shape, *event)


def _assembled(elements: list[Tensor | None], costs: list[Tensor]) -> Tensor:
    """One tensor of the elements' costs, each at its element's place."""
    if elements[0] is None:
        return costs[0]
    places = zip(elements, costs, strict=True)
    return torch.stack([mask * cost for mask, cost in places if mask is not None]).sum(0)


def _total(parts: Sums, like: Tensor) -> Tensor:
    """All of ``parts``, every cost counted once, with the graph: a number for each lane of ``like``."""
    lanes = like.shape[:2]
    return torch.stack([like.new_zeros(lanes), *(sum_lane(cost).expand(lanes) for cost in parts.values())]).sum(0)


def _differentiated(
    branch: Branch, scope: _Scope, replay: Callable[[Branch], ReplayedRecord], like: Tensor, in_vmap: bool
) -> tuple[list[Sums], Tensor]:
    """The costs downstream of a changed site, and their gradient with respect to its value."""

    def cost(shift: Tensor) -> tuple[Tensor, Sums]:
        parts = scope.downstream(replay(replace(branch, shift=shift)))
        return _total(parts, like), parts

    if in_vmap:
        total, pull_back, parts = torch.func.vjp(cost, like, has_aux=True)  # type: ignore[misc]
        (gradient,) = pull_back(torch.ones_like(total))
        return [parts], gradient.detach()
    shift = like.requires_grad_()
    total, parts = cost(shift)
    if not total.requires_grad:
        return [parts], torch.zeros_like(like)  # only later scores depend on the value
    (gradient,) = torch.autograd.grad(total.sum(), [shift], allow_unused=True, retain_graph=True)
    return [parts], torch.zeros_like(like) if gradient is None else gradient
