"""What a new run must not write over."""

from __future__ import annotations

from pathlib import Path

from ppgrad.core import InvalidInput
from ppgrad.train.logs import CSV


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
