"""The code blocks of README and CONTRIBUTING run as they stand."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from ppgrad import Constant
from ppgrad.testing import check_mean, conformance_cases

ROOT = Path(__file__).parents[1]


def blocks(file: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)


@pytest.mark.parametrize("block", blocks("README.md"), ids=lambda block: block.splitlines()[0])
def test_readme(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_skeleton_of_an_estimator_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks("CONTRIBUTING.md")
    module = types.ModuleType("contributing")
    monkeypatch.setitem(sys.modules, "contributing", module)  # a dataclass looks its module up
    exec(compile(block, "CONTRIBUTING.md", "exec"), vars(module))
    cases = conformance_cases([module.HalfBaseline()])
    assert len(cases) >= 5
    for case in cases:
        check_mean(case, 1e-9, replicates=4000)


def test_every_command_of_the_readme_has_its_file() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"models/\w+\.py", text):
        assert (ROOT / path).is_file()
    assert Constant.__name__ in text
