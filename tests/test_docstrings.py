"""Every public docstring says what is applicable of arguments, shapes, results, errors and sources; spelling is one.

A section stands at the foot of a docstring: ``Args:``, ``Returns:``, ``Raises:``, ``Source:``. What does not apply to
something that should have it is said in two words: ``Raises: nothing.`` and ``Source: none.``
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import pytest

import ppgrad
from ppgrad.core import Draws
from tools.rooms import ROOT

PUBLIC = [name for name in ppgrad.__all__ if name != "__version__"]
MEMBERS = (ppgrad.Estimator, ppgrad.Baseline, ppgrad.Objective, ppgrad.Policy, Draws, dist.TorchDistribution)
"""Of these families each concrete class is somebody's method, and has a source."""


SHAPE = r"\bshape[sd]?\b|\bscalars?\b|\ba number\b|``\([^)]*\)``"


def is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def sections_wanted(value: Any) -> set[str]:
    if is_error(value):
        return set()
    signature = inspect.signature(value)
    wanted = {"Args"} if signature.parameters else set()
    if not inspect.isclass(value):
        returns = set() if signature.return_annotation == "None" else {"Returns"}
        return wanted | returns | {"Raises"}
    if value in MEMBERS or inspect.isabstract(value):
        return wanted if value is not ppgrad.Estimator and value is not ppgrad.Baseline else set()
    wanted |= {"Source"} if issubclass(value, MEMBERS) else set()
    return wanted | ({"Raises"} if raises_when_made(value) else set())


def raises_when_made(cls: type) -> bool:
    """Whether what the class itself does when it is made has a ``raise``."""
    name = "__post_init__" if dataclasses.is_dataclass(cls) else "__init__"
    if not inspect.isfunction(vars(cls).get(name)):
        return False
    tree = ast.parse(textwrap.dedent(inspect.getsource(vars(cls)[name])))
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree))


def tensors_of(value: Any) -> list[str]:
    """The parameters and results that are tensors."""
    signature = inspect.signature(value)
    annotations = {name: str(parameter.annotation) for name, parameter in signature.parameters.items()}
    if not inspect.isclass(value):
        annotations["return"] = str(signature.return_annotation)
    return [name for name, annotation in annotations.items() if re.search(r"\bTensor\b", annotation)]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_docstring_has_its_sections(name: str) -> None:
    value = getattr(ppgrad, name)
    text = value.__doc__ or ""
    missing = {each for each in sections_wanted(value) if not re.search(rf"^\s*{each}: ?", text, re.MULTILINE)}
    assert not missing, f"{name} does not say its {', '.join(sorted(missing))}"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_docstring_says_the_shapes_of_tensors(name: str) -> None:
    value = getattr(ppgrad, name)
    if not is_error(value) and tensors_of(value):
        assert re.search(SHAPE, value.__doc__ or ""), f"{name} does not say the shape of {tensors_of(value)}"


# British, with -ize: the spelling of Oxford's dictionary, and of "reparameterized" in the field's papers.
NOT_WRITTEN = (
    r"(?:un)?(?:normal|general|optim|minim|maxim|reparameter|regular|initial|summar|vector|factor|marginal|standard|"
    r"discret|penal|recogn|organ|real|synchron|central|special)is(?:e|ed|es|er|ers|ing|ation|ations)",
    r"(?:behavior|color|neighbor|favor|honor|labor)(?:s|ed|ing|al|able)?",
    r"(?:re)?center(?:s|ed|ing)?",
    r"gray|artifacts?|catalog|analyz(?:e|ed|es|ing)",
    r"(?:model|label|travel|cancel|signal)(?:ing|ed)(?<!ll....)(?<!ll...)(?<!ll..)",
)


def texts() -> Iterator[tuple[str, str]]:
    """Docstrings and pages, without what stands in code and without the titles of sources."""
    for page in sorted(ROOT.glob("*.md")):
        yield page.name, re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", " ", page.read_text(), flags=re.DOTALL)
    for source in sorted((ROOT / "ppgrad").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if is_text and isinstance(node.value.value, str):
                prose = re.sub(r"Source: [^§]*|>>> .*|\.\.\. .*|``.*?``|`[^`]*`|\b\w+:(?= )", " ", node.value.value)
                yield f"{source.relative_to(ROOT)}:{node.lineno}", prose


def test_spelling_is_british_with_ize() -> None:
    pattern = re.compile(rf"(?<![\w.=\"'])(?:{'|'.join(NOT_WRITTEN)})(?![\w=(\"'])", re.IGNORECASE)
    found = [f"{where}: {word}" for where, text in texts() for word in pattern.findall(text)]
    assert not found, "\n".join(found)


def test_the_spelling_test_finds_what_is_planted() -> None:
    pattern = re.compile("|".join(NOT_WRITTEN))
    assert all(pattern.fullmatch(word) for word in ("normalised", "behavior", "centered", "modeling", "analyzes"))
    assert not any(pattern.fullmatch(word) for word in ("normalized", "behaviour", "centred", "modelling", "precise"))
