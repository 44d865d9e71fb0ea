"""`config_gradient`: write the choice of estimators on the sites themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro.poutine as poutine

from ppgrad.core import Estimator
from ppgrad.engine.assignment.assignment import Assignment, Choice


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

    def configure(message: Mapping[str, Any]) -> dict[str, Any]:
        if message["type"] != "sample" or message["is_observed"] or type(message["fn"]).__name__ == "_Subsample":
            return {}
        if message["infer"].get("gradient") is not None:
            return {}
        chosen = assignment.chosen(message)
        return {} if chosen is None else {"gradient": chosen}

    return poutine.infer_config(fn, configure)
