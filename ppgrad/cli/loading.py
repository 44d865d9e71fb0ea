"""Load a problem from a file."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ppgrad.core import InvalidInput, PpgradError, Problem


def load_problem(
    path: str, settings: list[str], offered: Mapping[str, object] | None = None
) -> tuple[Problem, str, dict[str, object]]:
    """The problem that ``PATH[:NAME]`` names, made with ``KEY=VALUE`` settings; a short name; what it was made with.

    Args:
        path: ``PATH[:NAME]``.
        settings: each is ``KEY=VALUE``.
        offered: arguments that it is given if it has parameters of these names and the settings do not say.

    Raises:
        InvalidInput: no such file, no such name in it, or settings that it does not take.
    """
    file, _, name = path.partition(":")
    source, name = Path(file), name or "problem"
    if not source.is_file():
        raise InvalidInput(f"{file} is no file. Give the path of a Python file with problem(), or PATH:NAME.")
    found = getattr(_module(source), name, None)
    if found is None:
        raise InvalidInput(f"{file} has no {name}(). Define def {name}() -> ppgrad.Problem in it.")
    arguments = dict(map(_setting, settings))
    made_with: dict[str, object] = {"PATH": f"{source.name}:{name}"}
    if callable(found):
        arguments = {**_taken(found, offered or {}), **arguments}
        bound = _checked_arguments(f"{name}() of {file}", found, arguments)
        made_with |= {f"--set {key}": value for key, value in bound.items()}
        found = found(**arguments)
    elif arguments:
        raise InvalidInput(f"--set {settings[0]}: {name} of {file} is no function and takes no arguments.")
    if not isinstance(found, Problem):
        raise InvalidInput(f"{name} of {file} gives {type(found).__name__}. It is to be, or return, a ppgrad.Problem.")
    return found, source.stem, made_with


def _module(source: Path) -> Any:
    name = f"ppgrad_program_{source.stem}"
    spec = importlib.util.spec_from_file_location(name, source)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{source} is no Python file. Give the path of a .py file with problem().")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except PpgradError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"{source} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _taken(function: Callable[..., Any], offered: Mapping[str, object]) -> dict[str, Any]:
    """Those of the offered arguments for which a function has a parameter."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # one that does not say what it takes
        return {}
    return {name: value for name, value in offered.items() if name in parameters}


def _checked_arguments(what: str, function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """All arguments of the call, defaults too."""
    try:
        signature = inspect.signature(function)
        bound = signature.bind(**arguments)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise InvalidInput(f"{what} takes {takes}: {error}. Write --set KEY=VALUE for each.") from error
    bound.apply_defaults()
    return bound.arguments


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise InvalidInput(f"--set {text}: write KEY=VALUE.")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
