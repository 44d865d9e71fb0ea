"""Folders and files: made sure of before the work starts, replaced in one step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ppgrad.core.errors import InvalidInput


def writable_folder(folder: Path, mend: str) -> Path:
    """Make ``folder`` and see that a file can be written into it.

    Raises:
        InvalidInput: it is a file, or cannot be written; the message ends in ``mend``.
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"{folder} is a file and not a folder. {mend}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InvalidInput(f"Folder {folder} cannot be written: {error.strerror}. {mend}") from error


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that at every moment ``path`` holds all of the old one or all of the new one.

    The new one is written beside it, flushed to the disk, and takes its name in one step.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    unfinished = path.with_name(f".{path.name}.writing")
    try:
        with open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
