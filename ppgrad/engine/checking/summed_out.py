"""What one run tells of the sites that are summed out of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ppgrad.core import InvalidProgram, PpgradError
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.enumerating import deepest_plate
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.followed import Followed

_RUNS = 8
"""How often a program must run with one value of each site before an error is put down to all of them."""


def check_summed_out(executor: Executor, followed: Followed) -> None:
    """Raise where nothing would read what the model asks for.

    Raises:
        InvalidProgram: the guide draws what the model asks to be summed out.
    """
    guide = followed.traces[0]
    drawn = {} if guide is None or executor.summing is None else guide.nodes
    for name in followed.asked.enumerated:
        if name in drawn and not executor.setup.assignment.is_chosen(drawn[name]):
            raise InvalidProgram(
                f"Site '{name}' of the model has infer['enumerate'], and the guide draws it. To have it summed out of "
                "the likelihood, leave it out of the guide; to sum over the guide's draws, mark the guide's site "
                f"infer={{'enumerate': 'parallel'}}; or choose how to draw it: sites={{'{name}': ScoreFunction()}}."
            )


def plate_nesting(executor: Executor, given: float) -> float:
    """How many dimensions belong to plates: what was learned where sites are summed out, else as ``given``."""
    known = None if executor.summing is None else executor.summing.nesting
    return given if known is None else known


@contextmanager
def side_by_side_explained(executor: Executor) -> Iterator[None]:
    """Turn an error of a program that runs with one value of each site into one that says how all of them stand.

    Raises:
        InvalidProgram: names the latest site that is summed out.
    """
    try:
        yield
    except (PpgradError, NotImplementedError):
        raise
    except Exception as error:
        if executor.summing is None or not executor.summing.latest or not _runs_one_by_one(executor.program):
            raise
        site, nesting, depth = (
            executor.summing.latest[-1],
            executor.summing.nesting,
            deepest_plate(executor.program),
        )
        if nesting is not None and depth > nesting:
            raise InvalidProgram(
                f"The values of the summed-out site '{site}' stand side by side in the dimensions to the left of "
                f"max_plate_nesting={nesting}, where plates of the program lie. Write max_plate_nesting={depth}, or "
                "leave it out."
            ) from error
        where = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        raise InvalidProgram(
            f"The program runs with one value of each site, and not where all values of the summed-out site '{site}' "
            f"stand side by side, in a dimension to the left of all plates ({where}). Index tables by table[z] or "
            f"Vindex(table)[y, z], keep dimensions by tensors that broadcast, and do not reshape what depends on "
            f"'{site}'; or draw it in the guide."
        ) from error


def _runs_one_by_one(program: Program) -> bool:
    """Whether some runs end without an error where every site has one value."""
    try:
        for _ in range(_RUNS):
            deepest_plate(program)
    except Exception:
        return False
    return True
