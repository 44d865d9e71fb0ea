"""Results as files: all of them, or none."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from errno import ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING

from ppgrad.analysis.arviz import comparison_container
from ppgrad.analysis.comparison_data import ComparisonData
from ppgrad.analysis.plots import plot_bias, plot_distributions, plot_variance_cost
from ppgrad.analysis.tables import pairs, summary, totals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 160


def save_comparison(comparison: ComparisonData, folder: Path) -> list[Path]:
    """Write all of a comparison's files: ``comparison.nc``, three tables and three pictures.

    Returns:
        The paths of the files.

    Raises:
        OSError: the folder cannot be written.
        ValueError: there is only one replicate, which has no variance.
    """
    return save_files("comparison", folder, lambda hidden: _write(comparison, hidden))


def save_files(what: str, folder: Path, write: Callable[[Path], list[str]]) -> list[Path]:
    """Write all files of ``what``, or none.

    They are written to a hidden folder first: beside a folder that is new, which then takes its
    name in one step, or inside one that is there, from which each file is then moved.

    Args:
        what: for messages.
        folder: where to.
        write: puts the files into a folder and returns their names.

    Returns:
        The paths of the files.

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


def _write(comparison: ComparisonData, folder: Path) -> list[str]:
    comparison_container(comparison).to_netcdf(str(folder / "comparison.nc"))
    tables = {"summary.csv": summary, "totals.csv": totals, "pairs.csv": pairs}
    for name, table in tables.items():
        table(comparison).to_csv(folder / name)
    pictures: dict[str, Callable[[ComparisonData], Figure]] = {
        "bias.png": plot_bias,
        "distributions.png": plot_distributions,
        "variance_cost.png": plot_variance_cost,
    }
    for name, plot in pictures.items():
        plot(comparison).savefig(folder / name, dpi=DOTS_PER_INCH)
    return ["comparison.nc", *tables, *pictures]
