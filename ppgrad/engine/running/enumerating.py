"""Gives each site that is to be summed out of the model all of its values at once, side by side."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppgrad.core import InvalidProgram, Unsupported
from ppgrad.core.distributions import distribution_name
from ppgrad.core.generators import undisturbed
from ppgrad.engine.assignment.pyro_keys import check_keys
from ppgrad.engine.program.program import Program

MOST_DIMS = 48
"""How many dimensions all values side by side may take; torch has 64, and lanes and events want some."""


class PlatesUnknown(Exception):
    """A site is to be summed out, and it is not known, or not enough, how many dimensions plates take.

    ``depth`` is that of a plate that was met to the left of all that were known; 0 where nothing is known.
    """

    def __init__(self, depth: int = 0):
        super().__init__(depth)
        self.depth = depth


@dataclass
class Summing:
    """How many dimensions on the right belong to plates; the values of summed-out sites lie to the left of them.

    Args:
        nesting: the number; None until a site is met that is to be summed out.
        is_given: whether a person said so, by ``max_plate_nesting``.
        latest: the sites that were summed out in the latest run, as far as it came.
    """

    nesting: int | None = None
    is_given: bool = False
    latest: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, max_plate_nesting: float) -> Summing:
        known = max_plate_nesting != float("inf")
        return cls(int(max_plate_nesting) if known else None, known)

    def grow(self, program: Program, unknown: PlatesUnknown) -> None:
        """Learn how deep plates lie: as deep as one that was met, or as those of a run in which all sites are drawn."""
        self.nesting = unknown.depth or deepest_plate(program)

    def enumerating(self, guided: Collection[str]) -> Enumerating:
        """For one run of the model; ``guided`` are the sites that the guide has drawn."""
        return Enumerating(self, guided)


def deepest_plate(program: Program) -> int:
    """How many dimensions the plates of a program take in a run that nobody sees."""
    with undisturbed(), torch.no_grad(), poutine.block():
        guide = poutine.trace(program.guide).get_trace(*program.args, **program.kwargs)
        model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(*program.args, **program.kwargs)
    nodes = [node for trace in (guide, model) for node in trace.nodes.values() if node["type"] == "sample"]
    return max((-frame.dim for node in nodes for frame in node["cond_indep_stack"] if frame.vectorized), default=0)


class Enumerating(EnumMessenger):
    """Pyro's messenger, for the sites of a model that ask for it and that no guide draws.

    ``infer={"enumerate": "sequential"}`` is as "parallel": all values stand side by side.

    Args:
        summing: how many dimensions plates take.
        guided: the sites that the guide has drawn.

    Raises:
        PlatesUnknown: to be learned before the program runs again.
        Unsupported: a site has no finite support.
        InvalidProgram: a plate lies to the left of ``max_plate_nesting``, or too many sites see one another.
    """

    def __init__(self, summing: Summing, guided: Collection[str]):
        super().__init__(None if summing.nesting is None else -1 - summing.nesting)
        self._summing, self._guided = summing, guided
        self._summed = summing.latest = []
        self._left_out: tuple[str, str, int] | None = None

    def _pyro_sample(self, msg: Any) -> None:
        infer, word = msg["infer"], msg["infer"].get("enumerate")
        known, name = self._summing.nesting is not None, msg["name"]
        drawn = msg["is_observed"] or name in self._guided or not isinstance(msg["fn"], TorchDistributionMixin)
        if word is None or drawn:
            if known:
                infer.pop("enumerate", None)
                super()._pyro_sample(msg)
                if word is not None:
                    infer["enumerate"] = word
                self._check_plates(msg)
            return
        check_keys(name, infer)
        if not known:
            raise PlatesUnknown
        _check_support(name, msg["fn"])
        infer["enumerate"] = "parallel"
        self._summed.append(name)
        self._check_plates(msg)
        super()._pyro_sample(msg)
        self._check_dims(name, -infer["_enumerate_dim"] - (self._summing.nesting or 0))

    def _pyro_post_sample(self, msg: Any) -> None:
        if self._summing.nesting is not None:
            with _DataOfLanes():
                super()._pyro_post_sample(msg)

    def _check_plates(self, msg: Any) -> None:
        """Raise where values side by side would lie in a plate."""
        nesting = self._summing.nesting or 0
        deep = [frame for frame in msg["cond_indep_stack"] if frame.vectorized and -frame.dim > nesting]
        if deep and not self._summing.is_given:
            raise PlatesUnknown(max(-frame.dim for frame in deep))
        if deep:
            self._left_out = self._left_out or (msg["name"], deep[0].name, deep[0].dim)
        if self._left_out is not None and self._summed:
            name, plate, dim = self._left_out
            raise InvalidProgram(
                f"Site '{name}' is in plate '{plate}' of dimension {dim}, where max_plate_nesting={nesting} has the "
                f"values of '{self._summed[0]}' lie side by side. Write max_plate_nesting={-dim}, or leave it out."
            )

    def _check_dims(self, name: str, dims: int) -> None:
        if dims > MOST_DIMS:
            raise InvalidProgram(
                f"Site '{name}' is summed out beside {dims - 1} others, each of which it may depend on. Write "
                "for t in pyro.markov(range(…)) around the loop, or with pyro.markov(): where a site is no longer used."
            )


def _check_support(name: str, fn: Any) -> None:
    reason = "" if fn.has_enumerate_support else f"{distribution_name(fn)} has no finite support to sum over"
    if fn.has_enumerate_support:
        try:
            fn.enumerate_support(expand=False)
        except NotImplementedError:
            reason = f"the elements of {distribution_name(fn)} have different supports"
    if not reason:
        return
    inner = getattr(fn, "base_dist", None)
    mend = "Remove the mark and draw it in the guide."
    if inner is not None and inner.has_enumerate_support:
        mend = "Write it in a plate in place of .to_event(), or remove the mark and draw it in the guide."
        reason = "it is one event of several elements, whose joint values are too many to lie side by side"
    raise Unsupported(f"Site '{name}' is marked infer={{'enumerate': …}}, and {reason}.\n{mend}")


class _DataOfLanes(TorchFunctionMode):
    """Lets a library look at the shape of ``tensor.data`` inside of vmap, where torch refuses."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0].detach()
        return func(*args, **(kwargs or {}))
