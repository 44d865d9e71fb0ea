"""`config_gradient`: write the choice of estimators on the sites themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.poutine.messenger import Messenger

from ppgrad.core import Estimator, InvalidAssignment
from ppgrad.engine.assignment.assignment import Assignment, Choice, matches, unmatched


def config_gradient(
    fn: Callable[..., Any] | Estimator | None = None,
    default: Estimator | None = None,
    sites: Choice = None,
) -> Callable[..., Any]:
    """Write ``infer={"gradient": estimator}`` on the random sites of a program.

    As Pyro's ``config_enumerate`` does, it leaves a site's own choice alone, and it works as a
    decorator: ``@config_gradient(default=ScoreFunction())``.

    Args:
        fn: a model or a guide; None to get a decorator.
        default: the estimator of every random site that ``sites`` does not name; None for none.
        sites: ``{glob: estimator}``, or a function from a site's message to an estimator or None.

    Returns:
        The program with the choice written on its sites; without ``fn``, a decorator that makes it.

    Raises:
        InvalidAssignment: something that is no estimator's instance, two globs that disagree at a
            site, or, when the program has run, a glob that matched no site.
    """
    if isinstance(fn, Estimator):
        return config_gradient(default=fn, sites=sites)
    assignment = Assignment("config_gradient", default, sites)
    if fn is None:
        return lambda fn: config_gradient(fn, default, sites)

    configured: Callable[..., Any] = _Configuration(assignment)(fn)
    return configured


class _Configuration(Messenger):
    """Writes the choice on each random site of a run, and tells at its end of a glob that no run has matched."""

    def __init__(self, assignment: Assignment):
        super().__init__()
        self._assignment = assignment
        self._unmatched = set(assignment.globs)
        self._seen: list[str] = []

    def __enter__(self) -> Any:
        self._seen.clear()
        return super().__enter__()

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> Any:
        left = super().__exit__(exc_type, exc_value, traceback)
        if exc_type is None and self._unmatched:
            raise InvalidAssignment(unmatched(min(self._unmatched), "config_gradient(sites=…)", self._seen))
        return left

    def _pyro_sample(self, message: Any) -> None:
        if message["is_observed"] or type(message["fn"]).__name__ == "_Subsample":
            return
        self._seen.append(message["name"])
        if self._unmatched:
            self._unmatched -= {glob for glob in self._unmatched if matches(glob, message)}
        chosen = None if message["infer"].get("gradient") is not None else self._assignment.chosen(message)
        if chosen is not None:
            message["infer"]["gradient"] = chosen
