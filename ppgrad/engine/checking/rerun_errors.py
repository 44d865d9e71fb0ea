"""What becomes of an error in a run that only a check has made: it is logged, and the check says nothing."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from ppgrad.core import PpgradError
from ppgrad.engine.running.handed_over import WrittenTo
from ppgrad.engine.running.sampler import GridTooSmall, SharedNoise

logger = logging.getLogger("ppgrad")

_ENGINE = str(Path(__file__).parents[1])

_OF_VALUES = (ArithmeticError, RuntimeError, ValueError, PpgradError, GridTooSmall, SharedNoise, WrittenTo)
"""What other values may lead to anywhere: other shapes, other sites, densities that cannot be had."""


def log_rerun_error(left_out: str, error: Exception) -> None:
    """Log that an error keeps a check from saying anything.

    A program may raise anything where it is given values that it has not drawn, and so may torch under vmap: that is
    logged for debugging. An error of another kind that the engine's own code raises is a mistake in it: a warning.

    Args:
        left_out: what is not known now, a sentence's beginning.
        error: that the run ended in.
    """
    text = f"{type(error).__name__}: {error}"
    if is_of_the_engine(error):
        logger.warning("%s, for a mistake in ppgrad (%s). Please report it", left_out, text, exc_info=error)
    else:
        logger.debug("%s: %s", left_out, text)


def is_of_the_engine(error: Exception) -> bool:
    """Whether neither a program nor vmap can have raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    is_raised_here = bool(frames) and frames[-1].filename.startswith(_ENGINE)
    return is_raised_here and not isinstance(error, _OF_VALUES)
