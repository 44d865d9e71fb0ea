"""What can go wrong, one class a reason; every message names the site and the mend."""

from collections.abc import Iterator
from contextlib import contextmanager


class PpgradError(Exception):
    """Base of the errors that a change in the program or the call can mend."""


class Unsupported(PpgradError):
    """An estimator or a baseline was given a site that it cannot serve."""


class InvalidAssignment(PpgradError):
    """The choice of estimators does not fit the sites of the program."""


class InvalidProgram(PpgradError):
    """The program breaks a rule of its objective: no reward, a wrong shape, a parameter nobody can name."""


class OutOfSupport(InvalidProgram, ValueError):
    """A value has no density at its site: outside of the support, or of another shape. Pyro raises ``ValueError``."""


class NonFinite(PpgradError):
    """A reward, a log-probability or a distribution's parameter is NaN or infinite."""


class CannotBeExact(PpgradError):
    """The program is too large, or of the wrong kind, for an exact gradient."""


class InvalidInput(PpgradError):
    """An argument is outside its range, or names a file or folder that cannot be used."""


class TooManyBranches(InvalidInput):
    """The estimators need the program run more often than ``max_branches`` allows."""


class NoGradientPath(UserWarning):
    """A pathwise site from which no gradient reaches any cost."""


class CoupledSlices(UserWarning):
    """What belongs to one slice of a plate is computed from draws of another."""


class NotABound(UserWarning):
    """What is called a bound may lie above the evidence."""


class ReadPastSites(UserWarning):
    """A site of the model was computed from what the guide drew, and not from a site of the model."""


class NoCompiler(UserWarning):
    """What was to be compiled runs as it is."""


@contextmanager
def second_pass_explained() -> Iterator[None]:
    """Turn torch's error of a graph that was gone through already into one that says how it gets there.

    Raises:
        InvalidProgram: the program kept a value with its graph from the run before.
    """
    try:
        yield
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise InvalidProgram(
            "The program uses a value whose graph belongs to an earlier run, such as the state that a recurrent policy "
            "keeps. Begin each run with a state of its own, or keep state.detach()."
        ) from error
