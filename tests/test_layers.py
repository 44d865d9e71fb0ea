"""Rooms import downwards only, every member is exported, every public name is documented."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ppgrad
from ppgrad.baselines import all_baselines
from ppgrad.core import Baseline, Estimator
from ppgrad.estimators import all_estimators
from tools.rooms import PAGE, imports_of, page_with_pictures, rooms_of

PACKAGE = Path(ppgrad.__file__).parent

# A room may import those before it. `analysis` knows none of them, so that it runs without torch.
ROOMS = (
    "core", "sites", "estimators", "baselines", "policies", "engine", "objectives", "analysis", "measurement", "train",
    "testing", "envs", "cli",
)  # fmt: skip
APART = {"analysis": set()}
SIBLINGS = {"estimators": {"core"}, "baselines": {"core"}, "policies": {"core"}, "envs": {"core", "sites"}}

# What each room of the engine may import of the others.
ENGINE = {
    "program": set(),
    "assignment": set(),
    "dependence": set(),
    "running": {"program", "assignment", "dependence"},
    "checking": {"program", "assignment", "dependence", "running"},
    "compiling": {"program", "running"},
}


def rooms_imported(source: Path) -> set[str]:
    modules = {name.split(".")[1] for name in imports_of(source) if name.startswith("ppgrad.")}
    return modules & set(ROOMS)


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(source: Path) -> None:
    room = source.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    allowed = APART.get(room, SIBLINGS.get(room, set(ROOMS[: ROOMS.index(room)]))) | {room}
    extra = rooms_imported(source) - allowed
    assert not extra, f"{source.name} in {room} imports {extra}"


def test_the_rooms_of_the_engine_import_one_way() -> None:
    imported = rooms_of("ppgrad.engine")
    assert set(imported) == set(ENGINE)
    extra = {room: imported[room] - ENGINE[room] for room in ENGINE}
    assert not any(extra.values()), extra


def test_a_private_folder_is_known_to_its_own_room_alone() -> None:
    for source in PACKAGE.rglob("*.py"):
        for name in imports_of(source):
            parts = name.split(".")
            private = [i for i, part in enumerate(parts) if part.startswith("_") and i < len(parts) - 1]
            if parts[0] == "ppgrad" and private:
                room = PACKAGE.joinpath(*parts[1 : private[0]])
                assert room in source.parents, f"{source.relative_to(PACKAGE)} imports {name}"


def test_the_picture_of_the_rooms_is_what_the_imports_draw() -> None:
    page = PAGE.read_text()
    assert page_with_pictures(page) == page, "write: make rooms"


@pytest.mark.parametrize(
    ("folder", "base", "members"),
    [("estimators", Estimator, all_estimators()), ("baselines", Baseline, all_baselines())],
    ids=["estimators", "baselines"],
)
def test_every_member_is_exported_and_final(folder: str, base: type, members: tuple[type, ...]) -> None:
    for source in sorted((PACKAGE / folder).glob("*.py")):
        if source.name == "__init__.py":
            continue
        classes = [node.name for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef)]
        exported = [cls for cls in members if cls.__name__ in classes]
        assert exported, f"{folder}/{source.name} has no class in {folder}.__all__: {classes}"
    for member in members:
        assert issubclass(member, base)
        assert member.__mro__[1] is base, f"{member.__name__} inherits from another member"
        assert member.examples(), f"{member.__name__} has no examples"


def test_every_public_name_is_documented() -> None:
    for name in ppgrad.__all__:
        value = getattr(ppgrad, name)
        assert name == "__version__" or inspect.getdoc(value), name


@pytest.mark.parametrize("command", [["-c", "import ppgrad"], ["-m", "ppgrad.cli", "--help"]], ids=["import", "help"])
def test_start_up_is_light(command: list[str]) -> None:
    def seconds(arguments: list[str]) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - begin

    extra = min(seconds(command) - seconds(["-c", "pass"]) for _ in range(3))
    assert extra < 1.0
    heavy = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, ppgrad; print([m for m in ('torch', 'pyro', 'arviz') if m in sys.modules])",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert heavy.stdout.strip() == "[]"
