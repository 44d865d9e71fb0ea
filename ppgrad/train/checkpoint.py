"""Checkpoints as files: written in one step, checked when they are read, safe to load.

What one holds is up to `ppgrad.train.loop`, the names of a program's sites to `ppgrad.train.inspection`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppgrad.core import InvalidInput
from ppgrad.core.folders import replace_file

FORMAT = "ppgrad checkpoint"
VERSION = 2

_DEEPEST = 30
"""How deeply containers of a checkpoint are nested at most."""

_OTHER = "Give another path, or train from the start without resume."


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content``, tensors and plain containers, so that a kill at any moment leaves a whole file.

    ``torch.load(path, weights_only=True)`` reads it: ``content`` is under that key, beside its checksum.

    Raises:
        InvalidInput: the file cannot be written, or ``content`` holds something else.
    """
    content = plain(content)
    whole = {"format": FORMAT, "version": VERSION, "checksum": checksum(content), "content": content}
    written = io.BytesIO()  # torch would report a full disk in words of its own
    torch.save(whole, written)
    try:
        replace_file(path, lambda file: file.write(written.getbuffer()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidInput(
            f"Checkpoint {path} cannot be written: {reason}. Free some space, or choose another path."
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Nothing in the file is executed.

    Raises:
        InvalidInput: the file cannot be read, is truncated, foreign, of another version, or was
            changed after it was written.
    """
    try:
        written = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"Checkpoint {path} cannot be read: {error.strerror or error}. {_OTHER}") from error
    try:
        whole = torch.load(written, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InvalidInput(f"{path} is no checkpoint, or is truncated or damaged. {_OTHER}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise InvalidInput(f"{path} is no checkpoint of ppgrad.fit. {_OTHER}")
    if whole.get("version") != VERSION:
        raise InvalidInput(
            f"Checkpoint {path} has format version {whole.get('version')!r}, and this ppgrad reads {VERSION}. "
            "Use the ppgrad that wrote it, or train from the start."
        )
    content = whole.get("content")
    if not _is_sound(content, written.getbuffer().nbytes):
        raise InvalidInput(f"Checkpoint {path} holds what no ppgrad.fit has written. {_OTHER}")
    if not isinstance(content, dict) or checksum(content) != whole.get("checksum"):
        raise InvalidInput(f"Checkpoint {path} was changed after it was written: its checksum differs. {_OTHER}")
    return content


def _is_sound(tree: Any, size: int, depth: int = 0) -> bool:
    """Whether a tree is no deeper than a run's, and each tensor is whole: dense, and no longer than the file."""
    if depth > _DEEPEST:
        return False
    if isinstance(tree, Tensor):
        is_dense = tree.layout == torch.strided and not tree.is_meta and not tree.is_quantized
        return is_dense and tree.numel() * tree.element_size() <= size
    branches = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list | tuple) else ()
    return all(_is_sound(branch, size, depth + 1) for branch in branches)


@contextmanager
def refused_unless_it_fits(path: Path) -> Iterator[None]:
    """Go on from what was read of ``path``; what goes wrong is the checkpoint's fault.

    Raises:
        InvalidInput: a value is missing, or not of the kind that the run needs.
    """
    try:
        yield
    except InvalidInput:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        told = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise InvalidInput(f"Checkpoint {path} does not fit the program: {told}. {_OTHER}") from error


class RunCheckpoint:
    """The checkpoint of one run, and the step that it is of.

    Args:
        path: the file, or None for none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.step: int | None = None

    def write(self, step: int, content: Mapping[str, Any]) -> None:
        """Replace the file by one of ``step``.

        Raises:
            InvalidInput: it cannot be written; the message names the last good one.
        """
        if self.path is not None:
            try:
                write_checkpoint(self.path, content)
            except InvalidInput as error:
                raise InvalidInput(f"{error}{self.last_good}") from error
        self.step = step

    @property
    def last_good(self) -> str:
        """A sentence for the end of an error's message; empty before the first checkpoint."""
        if self.path is None or self.step is None:
            return ""
        return f" The last good checkpoint, {self.path}, is of step {self.step}."


def plain(tree: Any, where: str = "checkpoint") -> Any:
    """``tree`` with NumPy's numbers as Python's.

    Raises:
        InvalidInput: something in it, which is named, is neither a tensor nor plain data.
    """
    if isinstance(tree, Mapping):
        return {key: plain(value, f"{where}.{key}") for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        items = [plain(value, f"{where}.{place}") for place, value in enumerate(tree)]
        return items if isinstance(tree, list) else tuple(items)
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, Tensor):
        return tree.contiguous()  # one that was expanded would be read as longer than it is stored
    if tree is None or type(tree) in (str, bytes, bool, int, float, complex):
        return tree
    raise InvalidInput(
        f"A checkpoint holds tensors, numbers and text, and {where} is of type {type(tree).__name__}. "
        "Choose an optimizer and a schedule whose state is plain, or leave checkpoint out."
    )


def checksum(tree: Any) -> str:
    """SHA-256 of tensors and plain containers: of kinds, shapes, keys and every bit of the values."""
    found = hashlib.sha256()
    _feed(found, tree)
    return found.hexdigest()


def _feed(found: Any, tree: Any) -> None:
    if isinstance(tree, Tensor):
        found.update(f"{tree.dtype}{tuple(tree.shape)}".encode())
        flat = torch.empty(tree.numel(), dtype=tree.dtype).copy_(tree.detach().reshape(-1))  # whatever the strides
        found.update(flat.view(torch.uint8).numpy().tobytes())
    elif isinstance(tree, Mapping):
        found.update(f"dict{len(tree)}".encode())
        for key, value in tree.items():
            found.update(f"{type(key).__name__}{key!r}".encode())
            _feed(found, value)
    elif isinstance(tree, list | tuple):
        found.update(f"{type(tree).__name__}{len(tree)}".encode())
        for value in tree:
            _feed(found, value)
    else:
        found.update(f"{type(tree).__name__}{tree!r}".encode())
