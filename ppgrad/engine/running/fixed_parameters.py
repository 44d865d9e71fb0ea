"""A program run again with the values that it drew and with its parameters held fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppgrad.core import Unsupported
from ppgrad.core.distributions import without_mask
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.enumerating import Summing
from ppgrad.engine.running.execution import run, sites_of
from ppgrad.engine.running.sampler import Sampler
from ppgrad.engine.running.site import Drawn, Site

Traces = tuple[Trace | None, Trace]


class StoppedParameters(TorchFunctionMode):
    """Detaches every leaf that requires a gradient, wherever torch sees it; computed values pass."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # no other mode is to put a lane's own tensor in the place
            stopped = [_stopped(arg) for arg in args]
            named = {key: _stopped(value) for key, value in (kwargs or {}).items()}
        return func(*stopped, **named)


def _stopped(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        # Inside of vmap a value is wrapped, and says of itself that it is a leaf.
        is_value = torch._C._functorch.is_batchedtensor(arg)
        return arg if is_value or not (arg.is_leaf and arg.requires_grad) else arg.detach()
    if type(arg) in (list, tuple):
        return type(arg)(_stopped(item) for item in arg)
    return arg


class Again(Sampler):
    """Gives each random site a value that is known, its graph included; ``drawn`` says how they were drawn."""

    def __init__(self, values: Mapping[str, Tensor], drawn: Mapping[str, Drawn], copies: bool, summing: Summing | None):
        Messenger.__init__(self)
        self.summing = summing
        self.copies, self.given, self.parameters = copies, [], {}
        self._values = values
        self.drawn = dict(drawn)

    def _pyro_sample(self, message: Any) -> None:
        if not message["done"] and not message["is_observed"] and message["name"] in self._values:
            message["value"] = self._values[message["name"]]
            message["done"] = True


def stopped_terms(
    program: Program, sampler: Sampler, traces: Traces, costs: Callable[[Sequence[Site]], Sequence[Tensor | None]]
) -> list[dict[str, Tensor]]:
    """Run a program again for its terms with all parameters held fixed, ``{"cost": …, "density": …}`` a site.

    The draws and the subsamples stay as they were; what was computed from them is computed again.

    Args:
        program: to be run again.
        sampler: what it was run with.
        traces: the guide's and the model's trace of that run.
        costs: the objective's cost of each site.

    Raises:
        Unsupported: a site whose density is no part of the weights as it is: in the model, masked, scaled.
    """
    values = values_drawn(traces, sampler)
    for site in sites_of(*traces, sampler):
        _check_weighs(site)
    again = Again(values, dict.fromkeys(sampler.drawn, Drawn(None, {})), sampler.copies, sampler.summing)
    with StoppedParameters():
        sites = sites_of(*run(program, again), again)
        terms = []
        for site, cost in zip(sites, costs(sites), strict=True):
            term = {} if cost is None else {"cost": cost}
            terms.append(term | {"density": site.density} if site.is_random else term)
    return terms


def values_drawn(traces: Traces, sampler: Sampler) -> dict[str, Tensor]:
    """The value of each random site of a run and of each subsample, graphs included."""
    return {
        name: node["value"]
        for trace in traces
        if trace is not None
        for name, node in trace.nodes.items()
        if name in sampler.drawn or type(node.get("fn")).__name__ == "_Subsample"
    }


def _check_weighs(site: Site) -> None:
    if site.estimator is None or not site.estimator.needs.fixed_parameters:
        return
    reason = "" if site.in_guide else "it is not in the guide"
    reason = reason or ("" if without_mask(site.fn) is site.fn and site.is_plain else "it is masked or scaled")
    if reason:
        raise Unsupported(
            f"{type(site.estimator).__name__} cannot serve site '{site.name}': {reason}, so that its density is no "
            f"part of a sample's weight.\nChoose Pathwise() for it: sites={{'{site.name}': Pathwise()}}."
        )
