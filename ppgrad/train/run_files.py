"""The files of a run: where they lie, what must not be written over, who writes."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from ppgrad.core import InvalidInput
from ppgrad.train.logs import CSV

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("ppgrad")


def file_paths(checkpoint: Any, log_folder: Any, resume: bool, tensorboard: bool) -> tuple[Path | None, Path | None]:
    """The checkpoint's file and the log's folder that `fit` is given, None for none.

    Raises:
        InvalidInput: one is no path, or is of the wrong kind; ``resume`` or ``tensorboard`` lacks what it needs.
    """
    if resume and checkpoint is None:
        raise InvalidInput("resume=True needs a checkpoint. Write checkpoint='run.pt', the file to go on from.")
    if tensorboard:
        _check_tensorboard(log_folder)
    folder, file = _path("log_folder", log_folder), _path("checkpoint", checkpoint)
    if file is not None and file.is_dir():
        raise InvalidInput(f"checkpoint={str(file)!r} is a folder. Write a file in it, as {str(file / 'run.pt')!r}.")
    return file, folder


def _check_tensorboard(log_folder: Any) -> None:
    if log_folder is None:
        raise InvalidInput("tensorboard=True needs a place to write to. Write log_folder='runs/first', say.")
    if importlib.util.find_spec("tensorboard") is None:
        raise InvalidInput(
            "tensorboard=True needs TensorBoard. Run pip install 'ppgrad[train]', or leave it out: progress.csv has "
            "the same numbers."
        )


def _path(name: str, value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | PathLike):
        raise InvalidInput(f"fit({name}={value!r}): write a path, as {name}='run'.")
    return Path(value)


def check_new(
    checkpoint: Path | None,
    folder: Path | None,
    resume: bool,
    go_on: str = "Write resume=True",
    elsewhere: str = "another path",
) -> None:
    """Raise rather than write over another run.

    Args:
        checkpoint: the file of the run, or None.
        folder: of its log, or None.
        resume: whether to go on from the checkpoint, if it is there.
        go_on, elsewhere: what to write, in the words of the caller.

    Raises:
        InvalidInput: the checkpoint is there, or without it the log.
    """
    if checkpoint is not None and checkpoint.exists():
        if resume:
            return
        raise InvalidInput(f"Checkpoint {checkpoint} is there already. {go_on} to go on from it, or {elsewhere}.")
    if folder is not None and (folder / CSV).exists():
        missing = f", and there is no checkpoint {checkpoint} to go on from" if resume else ", of another run"
        raise InvalidInput(f"{folder / CSV} is there already{missing}. Write {elsewhere}, or remove it.")


@contextmanager
def sole_writer(folder: Path | None) -> Iterator[None]:
    """Hold the folder of a log, so that no other training writes into it; a process that is killed lets go of it.

    Windows and some network file systems have no such locks.

    Args:
        folder: it exists; None for no log.

    Raises:
        InvalidInput: another training holds it.
    """
    if folder is None or sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidInput(
            f"Another training writes into {folder}. Wait until it has ended, or choose another folder."
        ) from error
    except OSError as error:
        logger.warning("%s cannot be locked (%s): let no other training write into it", folder, error.strerror)
