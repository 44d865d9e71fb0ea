"""The parameters of a program: where they live and what they are called."""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor

from ppgrad.core import InvalidProgram
from ppgrad.engine.program.program import Program, passed, reachable

logger = logging.getLogger("ppgrad")

_noted: set[frozenset[str]] = set()


def named_parameters(program: Program, registered: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of ``program`` that wants a gradient, by name; where it has several, the first wins.

    Names come from the param store for what the program registered there; else from the argument
    or the variable that holds a module or a tensor: ``policy.weight`` for an argument ``policy``.
    """
    named: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, leaf in [*registered.items(), *_tensors(program)]:
        if id(leaf) not in seen and leaf.requires_grad and leaf.is_leaf:
            seen.add(id(leaf))
            named[name if name not in named else f"{name} ({len(named)})"] = leaf
    return named


def ids_of_parameters(program: Program, registered: dict[str, Tensor]) -> set[int]:
    """The ``id`` of every tensor that `named_parameters` has a name for."""
    found = [*registered.values()]
    for _, value in reachable(program, named=False):
        found += [value] if isinstance(value, Tensor) else value.parameters()
    return {id(leaf) for leaf in found if leaf.requires_grad and leaf.is_leaf}


def left_alone(program: Program, named: Mapping[str, Tensor], registered: Container[str]) -> frozenset[str]:
    """The parameters that training leaves as they are: they are read, and nobody registered or passed them."""
    known: set[int] = set()
    for item in passed(program):
        known.update(map(id, [item] if isinstance(item, Tensor) else item.parameters()))
    return frozenset(name for name, leaf in named.items() if name not in registered and id(leaf) not in known)


def check_named(named: dict[str, Tensor], reached: list[Tensor], ignored: set[int]) -> None:
    """Raise if a gradient flows into a tensor that has no name."""
    known = {id(leaf) for leaf in named.values()} | ignored
    for leaf in reached:
        if id(leaf) not in known:
            raise InvalidProgram(
                f"The program uses a tensor of shape {tuple(leaf.shape)} that requires a gradient and has no name. "
                "Register it with pyro.param or pyro.module, or pass it (or its module) as an argument."
            )


def register(named: dict[str, Tensor], by_program: frozenset[str]) -> None:
    """Register with Pyro the parameters that the program does not itself, so that `SVI` trains them."""
    stored = dict(pyro.get_param_store().named_parameters())
    for name, leaf in named.items():
        if name not in by_program:
            if stored.get(name, leaf) is not leaf:
                _forget(name)
            pyro.param(name, leaf)


def note_left_alone(names: Collection[str]) -> None:
    """Log, once, which parameters are read and not trained."""
    if names and frozenset(names) not in _noted:
        _noted.add(frozenset(names))
        logger.warning("Not trained, since the program neither registers nor takes it: %s", _listed(names))


def nothing_to_train(names: Collection[str]) -> InvalidProgram:
    """The error of a program that has no parameter to train; ``names`` of those that it reads."""
    read = f" It reads {_listed(names)}, which is not its own." if names else ""
    return InvalidProgram(
        f"The program has no parameter that requires a gradient, so there is nothing to train.{read} Register one "
        "with pyro.param or pyro.module, or pass a module as an argument."
    )


def _listed(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def register_again(named: dict[str, Tensor], by_program: frozenset[str]) -> None:
    """Put back the module parameters that the program registers and that were removed from the store since.

    Under vmap, ``pyro.module`` could not: what it registered there would be a tensor of one lane.
    """
    store = pyro.get_param_store()
    for name in by_program - set(store.keys()):
        if name in named:
            pyro.param(name, named[name])


def registered_in(traces: list[poutine.Trace | None]) -> dict[str, Tensor]:
    """The parameters that a program registered with Pyro in a run."""
    nodes = [node for trace in traces if trace is not None for node in trace.nodes.values()]
    return {node["name"]: unconstrained(node["value"]) for node in nodes if node["type"] == "param"}


def unconstrained(value: Any) -> Tensor:
    """The leaf of a ``pyro.param`` site's value; its own where Pyro keeps parameters in their modules."""
    leaf: Tensor = value.unconstrained() if hasattr(value, "unconstrained") else value
    return leaf


def include_registered(named: dict[str, Tensor], registered: Mapping[str, Any]) -> None:
    """Add to ``named`` the parameters that a run was the first to register by ``pyro.param``, as in a rare branch."""
    for name, value in registered.items():
        if name not in named:
            leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
            if leaf.requires_grad and leaf.is_leaf and all(leaf is not known for known in named.values()):
                named[name] = leaf


@contextmanager
def param_store_unchanged() -> Iterator[None]:
    """Forget, on leaving, the parameters that were created inside."""
    store = pyro.get_param_store()
    before = set(store.keys())
    try:
        yield
    finally:
        for name in set(store.keys()) - before:
            _forget(name)


def _forget(name: str) -> None:
    """Take a parameter out of the store; the store's own ``del`` fails for a tensor that has two names there."""
    store = pyro.get_param_store()
    leaf = store._params.pop(name)
    store._constraints.pop(name, None)
    if store._param_to_name.get(leaf) == name:
        del store._param_to_name[leaf]


@contextmanager
def buffers_unchanged(program: Program) -> Iterator[None]:
    """Put the buffers of the program's modules (a batch norm's statistics) back on leaving."""
    modules = [value for _, value in reachable(program) if isinstance(value, torch.nn.Module)]
    kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


def _tensors(program: Program) -> Iterator[tuple[str, Tensor]]:
    for name, value in reachable(program):
        if isinstance(value, Tensor):
            yield name, value
        else:
            for inner, parameter in value.named_parameters():
                yield f"{name}.{inner}" if name else inner, parameter
