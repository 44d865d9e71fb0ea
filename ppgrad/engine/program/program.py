"""A program, and the modules and tensors that it holds: in its arguments, its closures, its owner."""

from __future__ import annotations

import dis
import functools
import inspect
import random
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType, WrapperDescriptorType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import SUPPORTED_NODES, TreeSpec, tree_leaves, tree_structure, tree_unflatten

from ppgrad.core.arguments import shown
from ppgrad.core.errors import InvalidInput
from ppgrad.policies import Policy

Held = Tensor | torch.nn.Module

_LEAVES = (Tensor, torch.nn.Module, bool, int, float, str, type(None))

_ROUTINES = (FunctionType, MethodType, BuiltinFunctionType, WrapperDescriptorType, functools.partial)

_LIBRARIES = frozenset(("torch", "pyro", "numpy"))
"""Their functions read nothing that a program changes."""

_LONGEST = 1000
"""Longer lists and dicts are data."""


@dataclass(frozen=True)
class Program:
    """A model, perhaps a guide, and the arguments of both, as they are for one gradient."""

    model: Callable[..., Any]
    guide: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @cached_property
    def leaves(self) -> list[Any]:
        """The leaves of its arguments."""
        return list(self.args) if self._is_flat else tree_leaves((self.args, dict(self.kwargs)))

    @cached_property
    def structure(self) -> Hashable:
        """Equal for two programs whose arguments are equal trees of leaves."""
        return len(self.args) if self._is_flat else self._tree

    def with_leaves(self, leaves: list[Any]) -> Program:
        """The same with other leaves."""
        args, kwargs = tree_unflatten(leaves, self._tree)
        return replace(self, args=args, kwargs=kwargs)

    @property
    def _tree(self) -> TreeSpec:
        return tree_structure((self.args, dict(self.kwargs)))

    @cached_property
    def _is_flat(self) -> bool:
        return not self.kwargs and all(type(x) not in SUPPORTED_NODES and not isinstance(x, tuple) for x in self.args)

    @cached_property
    def contents(self) -> list[tuple[str, Any]]:
        """Everything that it can reach, two objects deep, by name; arguments are named by their place."""
        return list(_everything(self, _placed))


def program_of(model: Any, guide: Any = None, args: Any = (), kwargs: Any = None) -> Program:
    """A `Program` from what a person passes.

    Raises:
        InvalidInput: names the argument that is not what it is to be.
    """
    if not callable(model):
        raise InvalidInput(f"{shown(model)} is no program. Write a policy, or a Pyro program: a function or a module.")
    if guide is not None and not callable(guide):
        raise InvalidInput(f"guide={shown(guide)}: write a Pyro program, or None. Arguments go in args=(…,).")
    if not isinstance(args, tuple | list):
        raise InvalidInput(f"args={shown(args)}: write a tuple, as args=({shown(args)},).")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InvalidInput(f"kwargs={shown(kwargs)}: write a dict, as kwargs={{'name': value}}.")
    return Program(model, guide, tuple(args), dict(kwargs or {}))


def reachable(program: Program, named: bool = True) -> Iterator[tuple[str, Held]]:
    """Every module and tensor that the program can get at, with the name of what holds it.

    Not ``named``, arguments go by their place: it takes half the time.
    """
    for name, value in _everything(program, _bound) if named else program.contents:
        if isinstance(value, Tensor | torch.nn.Module):
            yield name, value


def passed(program: Program) -> Iterator[Held]:
    """The modules and tensors that are there to be learned: a program, its arguments, a `Policy`, that of a rollout."""
    seen: set[int] = set()
    handed = list(program.leaves)
    for function in (program.model, program.guide):
        while isinstance(function, functools.partial):
            handed += [*function.args, *function.keywords.values()]
            function = function.func
        if isinstance(function, torch.nn.Module):
            handed.append(function)
    handed += [function.rollout.policy for function in functions(program) if hasattr(function, "rollout")]
    handed += [value for _, value in program.contents if isinstance(value, Policy)]
    for value in handed:
        for _, item in _in_value("", value, 2, seen):
            if isinstance(item, Tensor | torch.nn.Module):
                yield item


def tensors_held(program: Program) -> Iterator[Tensor]:
    """Every tensor that the program can get at, those of its modules included."""
    for _, value in reachable(program, named=False):
        yield from [value] if isinstance(value, Tensor) else tensors_of(value)


def functions(program: Program) -> Iterator[Callable[..., Any]]:
    """The functions that a program is made of: model and guide, functions among its arguments, and what these read."""
    waiting = [(f, 2) for f in (program.model, program.guide, *program.leaves)]
    seen = set()
    while waiting:
        function, depth = waiting.pop(0)
        function = function.func if isinstance(function, functools.partial) else function
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function) and id(function) not in seen:
            seen.add(id(function))
            yield function
            if depth:
                waiting += [(value, depth - 1) for _, value in _variables(inspect.unwrap(function))]


def is_data(leaf: Any) -> bool:
    """Whether an argument is a tensor that requires no gradient."""
    return isinstance(leaf, Tensor) and not leaf.requires_grad


def tensors_of(module: torch.nn.Module) -> list[Tensor]:
    """The parameters and buffers of a module."""
    return [*module.parameters(), *module.buffers()]


def _everything(program: Program, bind: Callable[..., list[tuple[str, Any]]]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for function in (program.model, program.guide):
        if function is not None:
            for name, value in bind(function, program.args, program.kwargs):
                yield from _in_value(name, value, 2, seen)
            yield from _in_function(function, 2, seen)


def _in_function(function: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(function, functools.partial):
        for i, value in enumerate(function.args):
            yield from _in_value(f"arg{i}", value, depth, seen)
        for name, value in function.keywords.items():
            yield from _in_value(name, value, depth, seen)
        yield from _in_function(function.func, depth, seen)
        return
    if isinstance(function, torch.nn.Module):
        yield "", function
        return
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        yield from _in_value("self", owner, depth, seen)
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not isinstance(function, FunctionType):
        yield "", function
    elif id(function) not in seen:
        seen.add(id(function))
        yield "", function.__code__
        if (function.__module__ or "").partition(".")[0] not in _LIBRARIES:
            for name, value in _variables(function):
                yield from _in_value(name, value, depth, seen)


def _variables(function: Any) -> Iterator[tuple[str, Any]]:
    """The closed-over and global variables that a function reads, and its defaults."""
    for i, value in enumerate(function.__defaults__ or ()):
        yield f"default{i}", value
    yield from (function.__kwdefaults__ or {}).items()
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


def _bound(function: Callable[..., Any], args: Any, kwargs: Any) -> list[tuple[str, Any]]:
    call = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        bound = inspect.signature(call).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return _placed(function, args, kwargs)
    return list(bound.items())


def _placed(function: Callable[..., Any], args: Any, kwargs: Any) -> list[tuple[str, Any]]:
    return [*((f"arg{i}", value) for i, value in enumerate(args)), *kwargs.items()]


def _in_value(name: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, _LEAVES):
        yield name, value
    elif isinstance(value, dict) and len(value) <= _LONGEST:
        for key, item in value.items():
            yield from _in_value(f"{name}.{key}", item, depth, seen)
    elif isinstance(value, list | tuple) and len(value) <= _LONGEST:
        for i, item in enumerate(value):
            yield from _in_value(f"{name}.{i}", item, depth, seen)
    elif isinstance(value, _ROUTINES):
        yield from _in_function(value, depth, seen)
    elif depth > 0 and hasattr(value, "__dict__") and not isinstance(value, ModuleType | type | random.Random):
        yield name, type(value)
        for key, item in vars(value).items():
            yield from _in_value(f"{name}.{key}", item, depth - 1, seen)
    else:
        yield name, value
