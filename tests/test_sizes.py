"""One idea a file, a function that fits a screen, a class that can be held in the head."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import ppgrad

PACKAGE = Path(ppgrad.__file__).parent
LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 60
"""Of code: what a docstring says of arguments and errors does not make a function longer."""
MEMBERS_OF_A_CLASS = 15
"""Public ones, those left out that a base class already names."""

PUBLIC_FACE = {
    "Objective": "Pyro's ELBO, and what fit and measure ask of an objective",
    "Estimator": "what an author of estimators can say; the base class has an answer for nearly all of it",
    "Comparison": "tables, pictures and files of one comparison, each a method away",
    "Measurement": "every number that replicates give of one estimator, by its name",
    "Signal": "all that an estimator may know of a draw's cost",
    "Site": "all that an objective may know of a site",
}


def parsed() -> Iterator[tuple[str, str, ast.Module]]:
    for source in sorted(PACKAGE.rglob("*.py")):
        text = source.read_text()
        yield source.relative_to(PACKAGE).as_posix(), text, ast.parse(text)


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = ast.get_docstring(function, clean=False)
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)


def long_files() -> set[str]:
    return {name for name, text, _ in parsed() if len(text.splitlines()) > LINES_OF_A_FILE}


def long_functions() -> set[str]:
    return {
        f"{name}: {node.name}"
        for name, _, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of_code(node) > LINES_OF_A_FUNCTION
    }


def names_in(cls: ast.ClassDef) -> set[str]:
    """The names of a class: methods, fields, and what ``__init__`` sets."""
    found: set[str] = set()
    for node in cls.body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            found |= {
                each.attr
                for each in ast.walk(node)
                if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
            }
    return {name for name in found if not name.startswith("_")}


def wide_classes() -> set[str]:
    found = set()
    for name, _, tree in parsed():
        module = "ppgrad." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            bases = getattr(importlib.import_module(module), node.name).__mro__[1:]
            own = {member for member in names_in(node) if not any(hasattr(base, member) for base in bases)}
            if len(own) > MEMBERS_OF_A_CLASS and node.name not in PUBLIC_FACE:
                found.add(f"{name}: {node.name}")
    return found


def test_no_file_is_long() -> None:
    assert not long_files()


def test_no_function_is_long() -> None:
    assert not long_functions()


def test_no_class_is_wide_outside_of_the_public_face() -> None:
    assert not wide_classes()
