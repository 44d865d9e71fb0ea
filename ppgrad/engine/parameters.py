"""The parameters of a program: where they live and what they are called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor

from ppgrad.core import InvalidProgram


def named_parameters(program: Any, announced: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of ``program`` that wants a gradient, by name.

    Names come from the param store for what the program registered there; else from the argument
    or the variable that holds a module or a tensor: ``policy.weight`` for an argument ``policy``.
    """
    named = dict(announced)
    seen = {id(leaf) for leaf in named.values()}
    for name, leaf in _held(program):
        if id(leaf) not in seen and leaf.requires_grad and leaf.is_leaf:
            seen.add(id(leaf))
            named[name if name not in named else f"{name} ({len(named)})"] = leaf
    return {name: leaf for name, leaf in named.items() if leaf.requires_grad}


def check_named(named: dict[str, Tensor], reached: list[Tensor], ignored: set[int]) -> None:
    """Raise if a gradient flows into a tensor that has no name."""
    known = {id(leaf) for leaf in named.values()} | ignored
    for leaf in reached:
        if id(leaf) not in known:
            raise InvalidProgram(
                f"The program uses a tensor of shape {tuple(leaf.shape)} that requires a gradient and has no name. "
                "Register it with pyro.param or pyro.module, or pass it (or its module) as an argument."
            )


def announce(named: dict[str, Tensor], program_announces: frozenset[str]) -> None:
    """Tell Pyro of the parameters that the program does not itself, so that `SVI` trains them."""
    store = pyro.get_param_store()
    registered = dict(store.named_parameters())
    for name, leaf in named.items():
        if name not in program_announces:
            if registered.get(name, leaf) is not leaf:
                del store[name]
            pyro.param(name, leaf)


def announced(traces: list[poutine.Trace | None]) -> dict[str, Tensor]:
    """The parameters that a program announced to Pyro in a run."""
    nodes = [node for trace in traces if trace is not None for node in trace.nodes.values()]
    return {node["name"]: node["value"].unconstrained() for node in nodes if node["type"] == "param"}


@contextmanager
def param_store_unchanged() -> Iterator[None]:
    """Forget, on leaving, the parameters that were created inside."""
    store = pyro.get_param_store()
    before = set(store.keys())
    try:
        yield
    finally:
        for name in set(store.keys()) - before:
            del store[name]


def _held(program: Any) -> Iterator[tuple[str, Tensor]]:
    for function in (program.model, program.guide):
        if function is not None:
            yield from _in_function(function, program.args, program.kwargs)


def _in_function(function: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[tuple[str, Tensor]]:
    for name, value in _arguments(function, args, kwargs):
        yield from _in_value(name, value, depth=2)
    while isinstance(function, functools.partial):
        for i, value in enumerate(function.args):
            yield from _in_value(f"arg{i}", value, depth=2)
        for name, value in function.keywords.items():
            yield from _in_value(name, value, depth=2)
        function = function.func
    if isinstance(function, torch.nn.Module):
        yield from function.named_parameters()
        return
    owner = getattr(function, "__self__", None)
    if owner is not None:
        yield from _in_value("self", owner, depth=2)
    function = inspect.unwrap(getattr(function, "__func__", function))
    if inspect.isfunction(function):
        closure = inspect.getclosurevars(function)
        for name, value in [*closure.nonlocals.items(), *closure.globals.items()]:
            if inspect.isfunction(value) and value is not function:
                inner = inspect.getclosurevars(value)
                for inner_name, inner_value in [*inner.nonlocals.items(), *inner.globals.items()]:
                    yield from _in_value(inner_name, inner_value, depth=1)
            else:
                yield from _in_value(name, value, depth=1)


def _arguments(function: Callable[..., Any], args: Any, kwargs: Any) -> list[tuple[str, Any]]:
    call = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        bound = inspect.signature(call).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return [*((f"arg{i}", value) for i, value in enumerate(args)), *kwargs.items()]
    return list(bound.items())


def _in_value(name: str, value: Any, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, torch.nn.Module):
        for inner, parameter in value.named_parameters():
            yield f"{name}.{inner}", parameter
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _in_value(f"{name}.{key}", item, depth)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _in_value(f"{name}.{i}", item, depth)
    elif depth and hasattr(value, "__dict__") and not isinstance(value, ModuleType | type):
        for key, item in vars(value).items():
            yield from _in_value(f"{name}.{key}", item, depth - 1)
