"""Run a program once: its traces, and their sites in program order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

import pyro.poutine as poutine
from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger

from ppgrad.engine.program.program import Program
from ppgrad.engine.running.handed_over import HandedOver, WrittenTo, version_of
from ppgrad.engine.running.sampler import Sampler
from ppgrad.engine.running.site import Drawn, Kind, Site
from ppgrad.engine.running.summed_out import with_sums
from ppgrad.estimators import ScoreFunction


class Watching(Protocol):
    """A messenger that wants to know when the guide is done, and what the model's sites say, which replay forgets."""

    asked: Messenger

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> Any: ...
    def start_model(self) -> None: ...


def run(
    program: Program, sampler: Sampler, watching: Watching | None = None
) -> tuple[poutine.Trace | None, poutine.Trace]:
    """Run the guide, if there is one, then the model replayed against it.

    Raises:
        WrittenTo: the program wrote into what it had handed over; the sampler is to say ``copies``.
    """
    looks = sampler.copies or watching is not None
    with sampler, HandedOver(sampler.copies).checked() if looks else nullcontext(), watching or nullcontext():
        traces = _traces(program, sampler, watching)
    if not sampler.copies and any(version_of(tensor) != version for tensor, version in sampler.given):
        raise WrittenTo
    return traces


def _traces(
    program: Program, sampler: Sampler, watching: Watching | None
) -> tuple[poutine.Trace | None, poutine.Trace]:
    args, kwargs = program.args, program.kwargs
    if program.guide is None:
        return None, poutine.trace(program.model).get_trace(*args, **kwargs)
    guide = poutine.unwrap(program.guide)
    if isinstance(guide, Messenger):
        program.guide(*args, **kwargs)
        model_trace, guide_trace = guide.get_traces()
        return guide_trace, model_trace
    guide_trace = poutine.trace(program.guide).get_trace(*args, **kwargs)
    if watching is not None:
        watching.start_model()
    model = program.model if watching is None else watching.asked(program.model)
    if sampler.summing is not None:
        model = sampler.summing.enumerating(guide_trace.nodes)(model)
    replayed = poutine.replay(model, trace=guide_trace)
    return guide_trace, poutine.trace(replayed).get_trace(*args, **kwargs)


def sites_of(guide_trace: poutine.Trace | None, model_trace: poutine.Trace, sampler: Sampler) -> list[Site]:
    """The sample sites of a run in program order: the guide's, then the model's."""
    sites = [
        *([] if guide_trace is None else _sites(guide_trace, sampler, True, {})),
        *_sites(model_trace, sampler, False, {} if guide_trace is None else guide_trace.nodes),
    ]
    nesting = None if sampler.summing is None else sampler.summing.nesting
    return sites if nesting is None else with_sums(sites, model_trace, nesting)


def _sites(trace: poutine.Trace, sampler: Sampler, in_guide: bool, replayed: Mapping[str, Any]) -> Iterator[Site]:
    for name, node in trace.nodes.items():
        if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample":
            continue
        drawn = None
        kind: Kind
        if isinstance(_innermost(node["fn"]), Unit):
            kind = "reward" if node["infer"].get("reward") else "factor"
            if kind == "factor" and in_guide and not node["fn"].has_rsample:
                kind, drawn = "draw", Drawn(ScoreFunction(), {})
        elif node["is_observed"]:
            kind = "observed"
        elif name in replayed:
            kind = "replayed"
        elif node["infer"].get("_enumerate_dim") is not None:
            kind = "enumerated"
        elif name in sampler.drawn:
            drawn = sampler.drawn[name]
            kind = "noise" if drawn.estimator is None else "draw"
        else:
            kind = "deterministic"
        is_relaxed = name in sampler.drawn and sampler.drawn[name].is_relaxed
        is_bounded = name in sampler.bounded and kind in ("replayed", "observed") and not is_relaxed
        yield Site(node, kind, in_guide, drawn, is_relaxed, is_bounded)


def _innermost(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def all_random_messages(
    guide_trace: poutine.Trace | None, model_trace: poutine.Trace, sampler: Sampler
) -> dict[str, Mapping[str, Any]]:
    """The random sites that an estimator could be chosen for, by name."""
    messages: dict[str, Mapping[str, Any]] = {}
    for trace in (guide_trace, model_trace):
        for name, node in () if trace is None else trace.nodes.items():
            if name in sampler.drawn:
                messages.setdefault(name, node)
    return messages
