"""The files that surround the package say the same as the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import ppgrad

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)  # what the format asks for
    assert str(citation["version"]) == ppgrad.__version__
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_has_this_version_after_what_is_unreleased() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[:2] == ["Unreleased", ppgrad.__version__]


@pytest.mark.parametrize("page", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")), ids=lambda page: page.stem)
def test_an_issue_template_names_itself(page: Path) -> None:
    heading = yaml.safe_load(page.read_text().split("---")[1])
    assert {"name", "about", "labels"} == set(heading)


def test_the_workflow_runs_what_contributors_run() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]
    matrix = job["strategy"]["matrix"]
    classifiers = [each.rsplit(" ", 1)[1] for each in PROJECT["classifiers"] if "Python :: 3." in each]
    assert matrix["python"] == classifiers
    wanted = {*matrix["dependencies"], *(each["dependencies"] for each in matrix["include"])}
    assert wanted == {"pinned", "newest", "lowest"}
    assert all((ROOT / f"constraints-{each}.txt").exists() for each in wanted - {"pinned"})
    targets = [re.match(r"make (\S+)", step["run"]) for step in job["steps"] if "run" in step]
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert target is not None
        assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE)


def test_the_lowest_versions_are_those_of_the_project() -> None:
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()[1:]
    floors = [re.sub(r"^([\w-]+)>=([\d.]+).*", r"\1==\2", each) for each in sorted(PROJECT["dependencies"])]
    assert lines == floors
