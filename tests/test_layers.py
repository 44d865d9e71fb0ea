"""Rooms import downwards only, every member is exported, every public name is documented."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
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
    "elimination": set(),
    "running": {"program", "assignment", "dependence", "elimination"},
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


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is below it, functions too, without what only a type checker sees."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        below = node.orelse
    else:
        yield node
        below = ast.iter_child_nodes(node)
    for child in below:
        yield from run_nodes(child)


def modules_of(room: Path, root: Path) -> dict[str, Path]:
    """The files of a room, in all of its folders, by the names that they are imported by."""
    dotted = {".".join(source.relative_to(root).with_suffix("").parts): source for source in sorted(room.rglob("*.py"))}
    return {name.removesuffix(".__init__"): source for name, source in dotted.items()}


def import_circle(modules: dict[str, Path], nodes: Callable[[ast.AST], Iterator[ast.AST]] = run_nodes) -> list[str]:
    """Modules each of which imports the next and the last of which is the first; none where there is no circle."""
    imports = {}
    for module, source in modules.items():
        found = set()
        for node in nodes(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{source} has a relative import"
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {name if name in modules else str(node.module) for name in names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        imports[module] = found & modules.keys()
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # it lists each module before one that imports it
    return []


@pytest.mark.parametrize("room", [room for room in ROOMS if (PACKAGE / room).is_dir()])
def test_no_room_has_an_import_circle(room: str) -> None:
    assert not import_circle(modules_of(PACKAGE / room, PACKAGE.parent))


def test_a_comparison_is_data_that_does_not_know_its_pictures() -> None:
    assert not import_circle(modules_of(PACKAGE / "analysis", PACKAGE.parent), ast.walk), "a type that runs up"


@pytest.mark.parametrize(
    ("last", "circle"),
    [
        ("from house.room.first import f", True),
        ("import house.room.first", True),
        ("from house.room import first", True),
        ("from house.room import first as other", True),
        ("from house import room", True),
        ("def late():\n    from house.room.first import f", True),
        ("class Late:\n    def late(self):\n        if True:\n            import house.room.first as first", True),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    from house.room.first import f", True),
        ("if TYPE_CHECKING:\n    from house.room.first import f", False),
        ("if typing.TYPE_CHECKING:\n    from house.room.first import f", False),
        ("from house.other import f", False),
        ("from house.room.below import leaf", False),
    ],
)
def test_an_import_circle_is_found(tmp_path: Path, last: str, circle: bool) -> None:
    room = tmp_path / "house" / "room"
    (room / "below").mkdir(parents=True)
    (room / "__init__.py").write_text("from house.room.first import f")
    (room / "first.py").write_text("from house.room.below.second import f")
    (room / "below" / "__init__.py").write_text("")
    (room / "below" / "leaf.py").write_text("")
    (room / "below" / "second.py").write_text(last)
    found = import_circle(modules_of(room, tmp_path))
    assert bool(found) is circle
    if circle:
        assert found[0] == found[-1]
        assert {"house.room.first", "house.room.below.second"} <= set(found)


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
