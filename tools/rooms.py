"""Draws the rooms of ppgrad and of its engine into CONTRIBUTING.md, as the imports are now: ``make rooms``."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN = "<!-- `make rooms` draws what follows. -->"
END = "<!-- end of what `make rooms` draws -->"


def imports_of(source: Path) -> set[str]:
    """The modules that a file imports anywhere, those imported for types included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def rooms_of(package: str) -> dict[str, set[str]]:
    """The folders and files of a package, each with those beside it that it imports."""
    folder = ROOT.joinpath(*package.split("."))
    members = [path for path in sorted(folder.iterdir()) if path.is_dir() or path.suffix == ".py"]
    rooms = {path.stem: path for path in members if not path.name.startswith("_")}
    graph: dict[str, set[str]] = {}
    for room, path in rooms.items():
        sources = path.rglob("*.py") if path.is_dir() else [path]
        inside = {name for source in sources for name in imports_of(source) if name.startswith(f"{package}.")}
        graph[room] = {name.removeprefix(f"{package}.").split(".")[0] for name in inside} & set(rooms) - {room}
    return graph


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same graph without the arrows that a longer way replaces.

    Raises:
        graphlib.CycleError: rooms import one another in a circle.
    """
    reached: dict[str, set[str]] = {}
    for room in TopologicalSorter(graph).static_order():
        reached[room] = set(graph[room]).union(*(reached[below] for below in graph[room]))
    return {
        room: {below for below in graph[room] if not any(below in reached[other] for other in graph[room])}
        for room in reached
    }


def picture(package: str) -> str:
    """A Mermaid flowchart; an arrow runs from a room to one that it imports, directly or through others."""
    arrows = reduced(rooms_of(package))
    lines = [f"    {room} --> {below}" for room in arrows for below in sorted(arrows[room])]
    drawn = {name for line in lines for name in line.replace("-->", " ").split()}
    alone = [f"    {room}" for room in arrows if room not in drawn]
    return "\n".join(["```mermaid", "flowchart TD", *alone, *lines, "```"])


def page_with_pictures(page: str) -> str:
    """The page, its pictures as the imports are now."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    pictures = "\n\n".join(f"`{package}`:\n\n{picture(package)}" for package in ("ppgrad", "ppgrad.engine"))
    return f"{before}{BEGIN}\n\n{pictures}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_pictures(PAGE.read_text()))
    print(f"drawn into {PAGE.name}", file=sys.stderr)
