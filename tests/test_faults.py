"""The faults that `make mutants` plants can be planted: the list follows the code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    yield __import__("mutants")
    sys.modules.pop("mutants", None)


def test_every_fault_can_be_planted(mutants) -> None:
    faults = mutants.all_faults()
    assert len(faults) >= 60
    mutants.check_all(faults)


def test_the_tests_of_every_fault_are_there(mutants) -> None:
    for fault in mutants.all_faults():
        for word in fault.tests.split():
            assert word.startswith(("conformance:", "--")) or (ROOT / word).exists(), fault


@pytest.mark.parametrize("old", ["def nowhere_to_be_found(", "import"])
def test_a_fault_that_the_source_has_not_once_is_an_error(mutants, old: str) -> None:
    with pytest.raises(SystemExit, match=r"core/draw\.py.*times"):
        mutants.check_all([mutants.Fault("core/draw.py", old, "", "tests/core")])
