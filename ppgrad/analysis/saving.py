"""Results as files: all of them, or none."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from errno import ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ppgrad.analysis.comparison import Comparison

DOTS_PER_INCH = 160


def save(comparison: Comparison, folder: Path) -> list[Path]:
    """Write all of a comparison's files; see `save_files`."""
    return save_files("comparison", folder, lambda hidden: _write(comparison, hidden))


def save_files(what: str, folder: Path, write: Callable[[Path], list[str]]) -> list[Path]:
    """Write all files of ``what``, or none.

    They are written to a hidden folder first: beside a folder that is new, which then takes its
    name in one step, or inside one that is there, from which each file is then moved.

    Args:
        what: for messages.
        folder: where to.
        write: puts the files into a folder and returns their names.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        target = folder.resolve()
        exists = target.is_dir()
        if target.exists() and not exists:
            raise NotADirectoryError(ENOTDIR, "it is a file")
        (target if exists else target.parent).mkdir(parents=True, exist_ok=True)
        hidden = (target if exists else target.parent) / f".writing-{uuid.uuid4().hex}"
        hidden.mkdir()
        try:
            names = write(hidden)
            if not exists:
                os.rename(hidden, target)
            else:
                for name in names:
                    os.replace(hidden / name, target / name)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"Cannot write a {what} to '{folder}': {reason}. Choose a folder that can be written.") from error
    return [folder / name for name in names]


def _write(comparison: Comparison, folder: Path) -> list[str]:
    comparison.to_arviz().to_netcdf(str(folder / "comparison.nc"))
    tables = {"summary.csv": comparison.summary, "totals.csv": comparison.totals, "pairs.csv": comparison.pairs}
    for name, table in tables.items():
        table().to_csv(folder / name)
    pictures: dict[str, Callable[[], Figure]] = {
        "bias.png": comparison.plot_bias,
        "distributions.png": comparison.plot_distributions,
        "variance_cost.png": comparison.plot_variance_cost,
    }
    for name, plot in pictures.items():
        plot().savefig(folder / name, dpi=DOTS_PER_INCH)
    return ["comparison.nc", *tables, *pictures]
