"""Notes, warnings and mistakes as lines on standard error."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer


@contextmanager
def explained(traceback: bool) -> Iterator[None]:
    """Turn a mistake into one line and exit code 2, and Ctrl-C into one line and 130."""
    from ppgrad.core import PpgradError

    try:
        yield
    except PpgradError as error:
        fail(str(error))
    except KeyboardInterrupt as error:
        print(str(error) or "Interrupted.", file=sys.stderr)
        raise typer.Exit(130) from error
    except Exception as error:
        if traceback:
            raise
        told, *_ = str(error).split("Trace Shapes:")  # Pyro appends a table of the sites
        fail(f"{type(error).__name__}: {told.strip()} (--traceback shows where)")


def plain_messages() -> None:
    """Print each note and each warning as one line."""
    logging.basicConfig(format="Note: %(message)s", level=logging.WARNING)
    logging.getLogger("ppgrad").setLevel(logging.INFO)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"Warning: {message}", file=sys.stderr)

    warnings.showwarning = show


def fail(message: str) -> NoReturn:
    """Print a mistake as one line, and end with exit code 2."""
    print("Error: " + " ".join(message.split()), file=sys.stderr)
    raise typer.Exit(2)
