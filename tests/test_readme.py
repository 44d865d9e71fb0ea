"""The code blocks of README and CONTRIBUTING run as they stand."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pyro
import pytest
import torch
from pyro import distributions as dist

import ppgrad
from ppgrad import Constant, Estimator, ExpectedReturn, fit
from ppgrad.testing import check_mean, conformance_cases

ROOT = Path(__file__).parents[1]


def blocks(file: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)


@pytest.mark.parametrize("block", blocks("README.md"), ids=lambda block: block.splitlines()[0])
def test_readme(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


SKELETONS = ("HalfBaseline", "TwoDraws", "LearnedLevel")


@pytest.fixture
def contributing(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """All blocks of CONTRIBUTING, one after the other: the later ones go on from the imports of the first."""
    module = types.ModuleType("contributing")
    monkeypatch.setitem(sys.modules, "contributing", module)  # a dataclass looks its module up
    for block in blocks("CONTRIBUTING.md"):
        exec(compile(block, "CONTRIBUTING.md", "exec"), vars(module))
    return module


@pytest.mark.parametrize("name", SKELETONS)
def test_the_skeletons_of_estimators_conform(contributing: types.ModuleType, name: str) -> None:
    (example,) = getattr(contributing, name).examples()
    cases = conformance_cases([example])
    assert len(cases) >= 5
    for case in cases:
        check_mean(case, 1e-9, replicates=4000)


def test_every_estimator_of_contributing_is_tested(contributing: types.ModuleType) -> None:
    members = [x for x in vars(contributing).values() if isinstance(x, type) and issubclass(x, Estimator)]
    assert {member.__name__ for member in members} == {*SKELETONS, "Estimator"}


def test_the_skeleton_that_learns_learns(contributing: types.ModuleType) -> None:
    """Gradient descent on (3 − c)² from c = 0 with a step of a quarter halves the error each time."""
    level = contributing.Level()

    def program() -> None:
        p = pyro.param("p", lambda: torch.tensor(0.5))
        ppgrad.cost("c", 3.0 + 0.0 * ppgrad.policy("a", dist.Bernoulli(p)))

    fit(
        ExpectedReturn(contributing.LearnedLevel(level)),
        program,
        steps=5,
        critic_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.25),
        progress=False,
    )
    torch.testing.assert_close(level.level.detach(), torch.tensor(3 * (1 - 0.5**5)))


def test_every_command_of_the_readme_has_its_file() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"models/\w+\.py", text):
        assert (ROOT / path).is_file()
    assert Constant.__name__ in text
