"""Rows of the table, and the table as text and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.timing import Race, Timing


@dataclass(frozen=True)
class Row:
    """A way of ppgrad against one rival.

    Args:
        program: what both do.
        way: of ppgrad.
        rival: its name.
        ours, theirs: median seconds, NaN where there are none.
        target: the most that the ratio may be, None where nothing is asked for.
        not_run: why one of them has no time; empty where both have.
        itself: whether the rival is ppgrad, too.
    """

    program: str
    way: str
    rival: str
    ours: float
    theirs: float
    target: float | None = None
    not_run: str = ""
    itself: bool = False

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or no ratio."""
        return None if self.target is None or math.isnan(self.ratio) else self.ratio <= self.target


def rows(race: Race, timings: Sequence[Timing]) -> list[Row]:
    """Each way against each of its rivals, whoever won and whoever did not run."""
    count = len(race.ways)
    found = []
    for way, ours in zip(race.ways, timings[:count], strict=True):
        for rival, theirs in zip(race.rivals, timings[count:], strict=True):
            if rival.against and way.name not in rival.against:
                continue
            not_run = "; ".join(timing.not_run for timing in (ours, theirs) if timing.not_run)
            target = rival.targets.get(way.name)
            found.append(
                Row(race.program, way.name, rival.name, ours.median, theirs.median, target, not_run, race.itself)
            )
        if way.limit is not None:
            label, limit = f"{way.name}, first call", f"{way.limit:g} seconds"
            found.append(Row(race.program, label, limit, ours.preparation, way.limit, 1.0, ours.not_run, itself=True))
    return found


def table(rows: Sequence[Row]) -> Table:
    """One line a row; a program's name only where it changes."""
    made = Table(title="Median of interleaved runs; ratio: ppgrad's time in units of the rival's")
    for column in ("program", "way", "rival", "ppgrad, ms", "rival, ms", "ratio", "target", "met"):
        left = column in ("program", "way", "rival", "met")
        made.add_column(column, justify="left" if left else "right", overflow="fold")
    before = None
    for row in rows:
        first = row.program != before
        if first and before is not None:
            made.add_section()
        before = row.program
        ending = f"not run: {row.not_run}" if row.not_run else {True: "yes", False: "NO", None: ""}[row.met]
        made.add_row(
            row.program if first else "",
            row.way,
            row.rival,
            milliseconds(row.ours),
            milliseconds(row.theirs),
            "" if math.isnan(row.ratio) else f"{row.ratio:.3g}",
            "" if row.target is None else f"{row.target:g}",
            ending,
        )
    return made


def milliseconds(seconds: float) -> str:
    """Three digits, nothing for NaN."""
    if math.isnan(seconds):
        return ""
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def summary(rows: Sequence[Row]) -> str:
    """How many targets are met, and which are not."""
    aimed = [row for row in rows if row.met is not None]
    missed = [
        f"  {r.program}: {r.way} takes {r.ratio:.3g} × {r.rival}, target {r.target:g}" for r in aimed if not r.met
    ]
    apart = sum(bool(row.not_run) for row in rows)
    first = f"{len(rows)} rows, {apart} of them not run. {len(aimed) - len(missed)} of {len(aimed)} targets are met."
    return "\n".join([first, *missed])


def save(path: Path, machine: Mapping[str, Any], rows: Sequence[Row], timings: Mapping[str, Sequence[Timing]]) -> None:
    """Everything that was measured, NaN as null."""
    content = {
        "machine": machine,
        "rows": [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows],
        "timings": {
            program: [{**asdict(timing), "median": timing.median} for timing in raced]
            for program, raced in timings.items()
        },
    }
    path.write_text(json.dumps(_without_nan(content), indent=1) + "\n")


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
