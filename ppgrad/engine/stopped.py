"""A program run again with the values that it drew and with its parameters held fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppgrad.engine.record import Program, Sampler, Site, run, sites_of


class StoppedParameters(TorchFunctionMode):
    """Detaches every leaf that requires a gradient, wherever torch sees it; computed values pass."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stopped = [_stopped(arg) for arg in args]
        return func(*stopped, **{key: _stopped(value) for key, value in (kwargs or {}).items()})


def _stopped(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        # Inside of vmap a value is wrapped, and says of itself that it is a leaf.
        is_value = torch._C._functorch.is_batchedtensor(arg)
        return arg if is_value or not (arg.is_leaf and arg.requires_grad) else arg.detach()
    if type(arg) in (list, tuple):
        return type(arg)(_stopped(item) for item in arg)
    return arg


class _Again(Sampler):
    """Gives each random site the value that it had, its graph included."""

    def __init__(self, values: dict[str, Tensor], drawn: dict[str, Any]):
        Messenger.__init__(self)
        self._values = values
        self.drawn = drawn

    def _pyro_sample(self, message: Any) -> None:
        if not message["done"] and not message["is_observed"] and message["name"] in self._values:
            message["value"] = self._values[message["name"]]
            message["done"] = True


def run_stopped(program: Program, sampler: Sampler, nodes: Sequence[Any]) -> list[Site]:
    """The sites of the program at the values that it drew, as functions of those values alone.

    Args:
        program: to be run again.
        sampler: what it was run with.
        nodes: the traces' sample nodes; the draws and the subsamples among them are kept, and what
            was computed from them is computed again.
    """
    values = {
        node["name"]: node["value"]
        for node in nodes
        if node["name"] in sampler.drawn or type(node["fn"]).__name__ == "_Subsample"
    }
    again = _Again(values, sampler.drawn)
    return sites_of(*run(program, again), again)
