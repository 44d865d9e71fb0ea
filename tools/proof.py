"""All cells of the product, and many random programs: `make proof`. Writes proof/cells.csv and proof/README.md."""

from __future__ import annotations

import argparse
import csv
import logging
import multiprocessing
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "proof" / "cells.csv"
SUMMARY = ROOT / "proof" / "README.md"


def read() -> list[list[str]]:
    """The published table, without its heading."""
    with TABLE.open() as lines:
        return list(csv.reader(lines))[1:]


def main() -> int:
    """Run what is asked for, write the table, and say what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, help="so many of the cells only; the table is not written")
    parser.add_argument("--programs", type=int, default=2000, help="how many random programs")
    parser.add_argument("--seed", type=int, default=0, help="of the random programs, and of a share of the cells")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--table", action="store_true", help="write the table of a share, too")
    given = parser.parse_args()
    begin = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(given.processes, initializer=_quiet) as pool:
        rows = _cells(pool, given.cells, given.seed)
        programs = _programs(pool, given.programs, given.seed)
    seconds = time.perf_counter() - begin
    failed = [line for line in rows if line[5] == "fails"]
    if given.cells is None or given.table:
        write(rows, given.programs, len(programs), seconds)
    for line in failed:
        print(*line, sep=" | ")
    for program in programs:
        print(program)
    print(f"{len(rows)} cells, {len(failed)} fail; {given.programs} programs, {len(programs)} fail; {seconds:.0f} s")
    return 1 if failed or programs else 0


def write(rows: Sequence[Sequence[str]], programs: int, failures: int, seconds: float) -> None:
    """The table, and its counts."""
    from ppgrad.testing.cells import LARGE, ROW, all_cells, counts

    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([ROW, *(line[: len(ROW)] for line in rows)])
    large = [line for line in rows if line[5] == "conforms" and float(line[6]) > LARGE]
    text = [
        "# What was proved\n",
        "Written by `make proof`. A cell is an estimator or a baseline, an objective and a shape of program; options, "
        "family and mode go round from cell to cell, see `ppgrad/testing/cells.py`. It *conforms* to the exact "
        "gradient, which an interpreter of its own computes; it *refuses* by name, with a mend; or it is *biased*, as "
        "it says.\n",
        f"{len(rows)} of {len(all_cells())} cells. {programs} random programs, of which {failures} failed. "
        f"{len(large)} of the cells that conform would have overlooked a bias of {LARGE:g} of the gradient's largest "
        "component; the column `smallest_bias` of cells.csv says which bias each would have found with "
        "probability 0.999.\n",
        _counts("estimator", counts(rows)),
        _counts("objective", counts([[*line[:1], line[1].split("(")[0], *line[2:]] for line in rows], "objective")),
        _counts("shape", counts(rows, "shape")),
        _counts("mode", counts(rows, "mode")),
    ]
    SUMMARY.write_text("\n".join(text))


def _counts(what: str, found: dict[str, dict[str, int]]) -> str:
    words = ("conforms", "refuses", "biased", "fails")
    lines = [f"| {what} | {' | '.join(words)} |", "|---" * 5 + "|"]
    lines += [f"| `{name}` | {' | '.join(str(each[word]) for word in words)} |" for name, each in sorted(found.items())]
    return "\n".join(lines) + "\n"


def _quiet() -> None:
    import torch

    torch.set_num_threads(1)
    logging.getLogger("ppgrad").setLevel(logging.ERROR)


def _cells(pool: multiprocessing.pool.Pool, count: int | None, seed: int) -> list[Sequence[str]]:
    from ppgrad.testing.cells import all_cells, some_cells

    cells = all_cells()
    places = range(len(cells))
    if count is not None:
        wanted = set(map(str, some_cells(cells, count, seed)))
        places = [i for i in places if str(cells[i]) in wanted]
    return sorted(_told(pool.imap_unordered(_cell, places, chunksize=4), len(places), "cells"))


def _programs(pool: multiprocessing.pool.Pool, count: int, seed: int) -> list[str]:
    every = range(seed, seed + count)
    return [text for text in _told(pool.imap_unordered(_program, every, chunksize=4), count, "programs") if text]


def _told(results: Iterable, count: int, what: str) -> list:
    found = []
    for result in results:
        found.append(result)
        if len(found) % 500 == 0:
            print(f"{len(found)} of {count} {what}", file=sys.stderr, flush=True)
    return found


def _cell(place: int) -> Sequence[str]:
    from ppgrad.testing import SUITE_FAILURE_RATE
    from ppgrad.testing.cells import all_cells, row

    cells = all_cells()
    cell = cells[place]
    verdict = cell.verdict(SUITE_FAILURE_RATE / (10 * len(cells)), thorough=True)
    return *map(str, row(cell, verdict)), verdict.message if verdict.word == "fails" else ""


def _program(seed: int) -> str:
    from ppgrad.testing import SUITE_FAILURE_RATE
    from ppgrad.testing.random_trials import Found, conforming

    found = conforming(random.Random(seed), SUITE_FAILURE_RATE / 20_000)
    return f"program {seed}: {found}" if isinstance(found, Found) else ""


if __name__ == "__main__":
    sys.exit(main())
