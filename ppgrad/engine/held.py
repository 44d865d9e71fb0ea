"""The modules and tensors that a program holds: in its arguments, its closures, its owner."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ppgrad.engine.record import Program

Held = Tensor | torch.nn.Module

_PLAIN = bool | int | float | str | None

_LONGEST = 1000
"""Longer lists and dicts are data."""


def held(program: Program) -> Iterator[tuple[str, Held]]:
    """Every module and tensor that the program can get at, with the name of what holds it."""
    for name, value in _everything(program):
        if isinstance(value, Tensor | torch.nn.Module):
            yield name, value


def tensors_held(program: Program) -> Iterator[Tensor]:
    """Every tensor that the program can get at, those of its modules included."""
    for _, value in held(program):
        yield from [value] if isinstance(value, Tensor) else _tensors_of(value)


def fingerprint(program: Program) -> tuple[Any, ...]:
    """What a program reads: the numbers and words themselves, and which tensors and modules, in which mode.

    Tensors among its arguments are data, and left out.
    """
    data = {id(leaf) for leaf in tree_leaves((program.args, dict(program.kwargs))) if is_data(leaf)}
    found: list[Any] = []
    for name, value in _everything(program):
        if isinstance(value, torch.nn.Module):
            training = [module.training for module in value.modules()]
            found.append((name, id(value), *training, *map(_identity, _tensors_of(value))))
        elif not isinstance(value, Tensor):
            found.append((name, value))
        elif id(value) not in data:
            found.append((name, *_identity(value)))
    return tuple(found)


def is_data(leaf: Any) -> bool:
    """Whether an argument is a tensor that nothing is learned of."""
    return isinstance(leaf, Tensor) and not leaf.requires_grad


def _tensors_of(module: torch.nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _identity(tensor: Tensor) -> Any:
    return id(tensor), tensor.requires_grad


def _everything(program: Program) -> Iterator[tuple[str, Any]]:
    """The modules, tensors, numbers and words that the program can get at."""
    for function in (program.model, program.guide):
        if function is not None:
            for name, value in _arguments(function, program.args, program.kwargs):
                yield from _in_value(name, value, depth=2)
            yield from _in_function(function, depth=2)


def _in_function(function: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(function, functools.partial):
        for i, value in enumerate(function.args):
            yield from _in_value(f"arg{i}", value, depth)
        for name, value in function.keywords.items():
            yield from _in_value(name, value, depth)
        yield from _in_function(function.func, depth)
        return
    if isinstance(function, torch.nn.Module):
        yield "", function
        return
    owner = getattr(function, "__self__", None)
    if owner is not None:
        yield from _in_value("self", owner, depth)
    function = inspect.unwrap(getattr(function, "__func__", function))
    if inspect.isfunction(function):
        for name, value in _variables(function):
            yield from _in_value(name, value, depth - 1)


def _variables(function: Any) -> Iterator[tuple[str, Any]]:
    """The closed-over and global variables that a function reads."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue  # not bound yet
    for name in _globals_read(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


@functools.lru_cache(maxsize=1024)
def _globals_read(code: CodeType) -> tuple[str, ...]:
    names = [step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += _globals_read(constant)
    return tuple(dict.fromkeys(names))


def _arguments(function: Callable[..., Any], args: Any, kwargs: Any) -> list[tuple[str, Any]]:
    call = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        bound = inspect.signature(call).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return [*((f"arg{i}", value) for i, value in enumerate(args)), *kwargs.items()]
    return list(bound.items())


def _in_value(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor | torch.nn.Module | _PLAIN):
        yield name, value
    elif isinstance(value, dict) and len(value) <= _LONGEST:
        for key, item in value.items():
            yield from _in_value(f"{name}.{key}", item, depth)
    elif isinstance(value, list | tuple) and len(value) <= _LONGEST:
        for i, item in enumerate(value):
            yield from _in_value(f"{name}.{i}", item, depth)
    elif depth <= 0 or isinstance(value, ModuleType | type):
        return
    elif inspect.isroutine(value) or isinstance(value, functools.partial):
        yield from _in_function(value, depth)
    elif hasattr(value, "__dict__"):
        for key, item in vars(value).items():
            yield from _in_value(f"{name}.{key}", item, depth - 1)
