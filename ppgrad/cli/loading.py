"""Load a problem from a file, and make sure that results can be written."""

from __future__ import annotations

import ast
import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

from ppgrad.core import InvalidInput, PpgradError, Problem


def load_problem(path: str, settings: list[str]) -> tuple[Problem, str]:
    """The problem that ``PATH[:NAME]`` names, made with ``KEY=VALUE`` settings, and a short name.

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
    if callable(found):
        arguments = dict(map(_setting, settings))
        try:
            found = found(**arguments)
        except TypeError as error:
            raise InvalidInput(f"{name}() of {file} failed: {error}") from error
    if not isinstance(found, Problem):
        raise InvalidInput(f"{name}() of {file} returned {type(found).__name__}. Return a ppgrad.Problem.")
    return found, source.stem


def writable_folder(folder: Path) -> Path:
    """Make ``folder`` and see that a file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InvalidInput(
            f"Folder {folder} cannot be written: {error.strerror}. Choose another with --out."
        ) from error


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
    except Exception as error:
        raise InvalidInput(f"{source} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise InvalidInput(f"--set {text}: write KEY=VALUE.")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
