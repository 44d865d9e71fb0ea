"""`py.typed` is true: two type checkers read a user's program, and find its mistakes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import ppgrad
from tests.typing import user_program
from tools.stub import STUB, stub

HERE = Path(__file__).parent
PACKAGE = Path(ppgrad.__file__).parent
GOOD, WRONG = HERE / "user_program.py", HERE / "wrong_program.py"
MISTAKES = [(WRONG.name, i) for i, line in enumerate(WRONG.read_text().splitlines(), 1) if line.endswith("# mistake")]


def test_the_program_runs() -> None:
    assert user_program.main().evaluations > 0


def test_the_stub_has_the_public_names() -> None:
    assert STUB.read_text() == stub(), "write: make stub"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, with an environment in which ppgrad is installed: only ``py.typed`` makes it typed there."""
    folder = tmp_path_factory.mktemp("project")
    venv.create(folder / "environment", symlinks=True)
    (site,) = folder.glob("environment/lib/python*/site-packages")
    (site / "installed.pth").write_text(f"{PACKAGE.parent}\n{sysconfig.get_path('purelib')}\n")
    for program in (GOOD, WRONG):
        shutil.copy(program, folder)
    return folder


def errors_of(checker: list[str], project: Path) -> str:
    command = [sys.executable, "-m", *checker]
    return subprocess.run(command, capture_output=True, text=True, cwd=project, check=False).stdout


@pytest.mark.slow
def test_mypy_reads_it(project: Path) -> None:
    settings = project / "mypy.ini"
    settings.write_text(
        "[mypy]\nstrict = True\ndisallow_subclassing_any = False\n"
        "[mypy-pyro.*]\nignore_missing_imports = True\nfollow_imports = skip\n"
    )
    interpreter = project / "environment" / "bin" / "python"
    found = errors_of(["mypy", "--python-executable", str(interpreter), GOOD.name, WRONG.name], project)
    places = [(name, int(line)) for name, line in re.findall(r"(\w+\.py):(\d+): error", found)]
    assert places == MISTAKES, found


@pytest.mark.slow
def test_pyright_reads_it(project: Path) -> None:
    pytest.importorskip("basedpyright")
    settings = {"typeCheckingMode": "standard", "venvPath": ".", "venv": "environment", "exclude": ["environment"]}
    (project / "pyrightconfig.json").write_text(json.dumps(settings))
    found = json.loads(errors_of(["basedpyright", "--outputjson"], project))["generalDiagnostics"]
    errors = [each for each in found if each["severity"] == "error"]
    places = sorted((Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in errors)
    assert places == MISTAKES, errors
