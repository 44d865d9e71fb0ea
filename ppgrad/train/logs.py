"""Metrics as they come: a CSV file, TensorBoard, a progress bar."""

from __future__ import annotations

import csv
import io
import math
import os
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from tqdm import tqdm

from ppgrad.core import InvalidInput
from ppgrad.core.folders import replace_file

if TYPE_CHECKING:
    import pandas

CSV = "progress.csv"


class Table:
    """Metrics by step: a column of numbers each, NaN where a step has none."""

    def __init__(self) -> None:
        self.columns: dict[str, array[float]] = {}
        self.rows = 0

    def append(self, row: Mapping[str, float]) -> bool:
        """Add a step; tell whether it brought a new column."""
        is_new = bool(row.keys() - self.columns.keys())
        for name in row:
            self.columns.setdefault(name, array("d", [math.nan]) * self.rows)
        for name, column in self.columns.items():
            column.append(row.get(name, math.nan))
        self.rows += 1
        return is_new

    def row(self, place: int) -> dict[str, float]:
        return {name: column[place] for name, column in self.columns.items()}

    def frame(self) -> pandas.DataFrame:
        """All steps, numbered from 1."""
        import pandas

        index = pandas.RangeIndex(1, self.rows + 1, name="step")
        return pandas.DataFrame({name: list(column) for name, column in self.columns.items()}, index=index)

    def state(self) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(column, dtype=torch.float64) for name, column in self.columns.items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        self.columns = {name: array("d", column.tolist()) for name, column in state.items()}
        self.rows = len(next(iter(self.columns.values()), ()))


class Logs:
    """Writes each step's metrics to where they were asked for.

    Args:
        table: all steps, to which the latest was just added.
        folder: of ``progress.csv`` and TensorBoard's events, or None.
        tensorboard: whether to write events.
        progress: whether to show a bar on a terminal.
        steps: how many there will be.

    Raises:
        InvalidInput: TensorBoard is not installed, or a file cannot be written; it ends in whole rows.
    """

    def __init__(self, table: Table, folder: Path | None, tensorboard: bool, progress: bool, steps: int):
        self._table = table
        self._path = None if folder is None else folder / CSV
        self._events = _events(folder, table.rows) if tensorboard and folder is not None else None
        if self._path is not None:
            self._rewrite()
        self._bar = tqdm(total=steps, initial=table.rows, disable=None if progress else True, unit="step")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._events is not None:
            self._events.close()

    def write(self, row: Mapping[str, float], has_new_column: bool) -> None:
        """Log the step that was just added to the table."""
        step = self._table.rows
        if has_new_column:
            self._rewrite()
        elif self._path is not None:
            self._append(self._path, _text([self._line(step - 1)]))
        if self._events is not None:
            for name, value in row.items():
                if not math.isnan(value):
                    self._events.add_scalar(name, value, step)
        shown = {"loss": row["train/loss"], "reward": row.get("rollout/ep_rew_mean"), "snr": row["grad/snr"]}
        self._bar.set_postfix({k: f"{v:.3g}" for k, v in shown.items() if v is not None}, refresh=False)
        self._bar.update()

    def _rewrite(self) -> None:
        """Write all steps so far, in one step, and go on from there."""
        if self._path is None:
            return
        header: list[list[Any]] = [["step", *self._table.columns]] if self._table.columns else []
        whole = _text([*header, *map(self._line, range(self._table.rows))])
        try:
            replace_file(self._path, lambda file: file.write(whole))
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def _append(self, path: Path, line: bytes) -> None:
        """Write one more row, or none of it."""
        try:
            with open(path, "ab", buffering=0) as file:
                whole = file.tell()
                try:
                    while line:
                        line = line[file.write(line) :]
                except OSError:
                    os.truncate(path, whole)
                    raise
        except OSError as error:
            raise _cannot_write(path, error) from error

    def _line(self, place: int) -> list[Any]:
        numbers = self._table.row(place).values()
        return [place + 1, *("" if math.isnan(number) else repr(number) for number in numbers)]


def _text(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cannot_write(path: Path, error: OSError) -> InvalidInput:
    reason = error.strerror or str(error)
    return InvalidInput(f"{path} cannot be written: {reason}. Free some space, or choose another log_folder.")


def _events(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InvalidInput(
            "tensorboard=True needs TensorBoard. Run pip install 'ppgrad[train]', or leave it out: progress.csv "
            "has the same numbers."
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
