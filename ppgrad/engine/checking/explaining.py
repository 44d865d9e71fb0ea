"""Errors at numbers that are not finite, or between those of a distribution, that name the site."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor

from ppgrad.core import NonFinite, OutOfSupport, PpgradError, Unsupported
from ppgrad.core.draw import total
from ppgrad.core.generators import draws_up_front, other_draws
from ppgrad.engine.assignment.assignment import Assignment
from ppgrad.engine.checking.ordinary_run import ordinary_run
from ppgrad.engine.checking.structure import check_finite, check_parameters
from ppgrad.engine.running.branches import cannot_relax
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.record import Record
from ppgrad.engine.running.validity import outside


@contextmanager
def relaxation_explained(assignment: Assignment, changed: str | None = None) -> Iterator[None]:
    """Turn a program's error at a value between those of a distribution into one that says what to choose."""
    try:
        yield
    except PpgradError:
        raise
    except Exception as error:
        relaxed = assignment.relaxed_sites(changed)
        if not relaxed:
            raise
        name, estimator = relaxed[-1]
        raise Unsupported(cannot_relax(name, estimator, error)) from error


@contextmanager
def nonfinite_explained(executor: Executor) -> Iterator[None]:
    """Turn an error of a distribution's own checks into one that names the site."""
    try:
        yield
    except OutOfSupport:
        raise
    except (ValueError, RuntimeError) as error:
        if draws_up_front():
            raise
        try:
            explain_nonfinite(executor)
        except (NonFinite, OutOfSupport) as explained:
            raise explained from error
        except Exception as other:
            logging.getLogger("ppgrad").debug("Not explained by a run without checks: %s", other)
            raise error from None
        raise


def explain_nonfinite(executor: Executor) -> None:
    """Run the program again and raise at the first site with a number that is not finite or in range.

    What the program itself says of it, as policies and environments do, goes first.
    """
    with other_draws(), pyro.validation_enabled(True):
        try:
            ordinary_run(executor)
        except (NonFinite, OutOfSupport):
            raise
        except Exception as error:
            logging.getLogger("ppgrad").debug("Not explained by the program: %s", error)
    with other_draws(), pyro.validation_enabled(False):
        sites = ordinary_run(executor, watch=check_parameters)
        check_finite(sites, executor.setup.costs(sites))


def check_record_finite(executor: Executor, records: list[Record]) -> None:
    """Raise if a cost or a log density of a run is NaN or infinite, naming the site."""
    entries = [entry for record in records for entry in record.entries]
    terms = [(entry.name, "cost", entry.cost) for entry in entries if entry.cost is not None]
    terms += [(entry.name, "log density", entry.draw.log_prob) for entry in entries if entry.draw is not None]
    with torch.no_grad():
        if bool(torch.isfinite(total([term for _, _, term in terms]))):
            return
    explain_nonfinite(executor)
    for name, what, term in terms:
        bad = term[~torch.isfinite(term)]
        if bad.numel() and name in executor.known.bounded and bool((bad == math.inf).any()):
            raise outside([name])
        if bad.numel():
            raise NonFinite(f"At site '{name}' the {what} is {float(bad[0].detach()):g}. Keep it finite.")


def not_finite(executor: Executor, losses: Tensor, otherwise: str) -> PpgradError:
    """The error of a loss or a gradient that is not finite, once `explain_nonfinite` has found nothing.

    Args:
        executor: of the program.
        losses: of the runs.
        otherwise: what to say unless a density is 0 at a value that nothing checked.
    """
    if executor.known.bounded and bool((losses == math.inf).any()):
        return outside(sorted(executor.known.bounded))
    return NonFinite(otherwise)
