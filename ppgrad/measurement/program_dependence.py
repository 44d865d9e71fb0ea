"""Which draw and which cost were computed from which draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ppgrad.analysis import ProgramDependence, SiteDependence
from ppgrad.engine.dependence.dependence import Dependence
from ppgrad.engine.dependence.sums import members
from ppgrad.engine.program.program import program_of
from ppgrad.measurement.gradient import pure
from ppgrad.objectives import ELBO, ExpectedReturn, Objective


def dependence(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    objective: Objective | None = None,
    seed: int = 0,
) -> ProgramDependence:
    """What each draw and each cost of a program was computed from, and which costs each draw is charged with.

    The program runs once and its values are followed through torch's operations. Where a value leaves torch
    (``.item()``, NumPy, ``if z``), what comes after is taken to depend on every draw before it, and ``notes`` says
    where that was. A plate's slices that are computed from each other are found by running the program again with
    one slice as it was.

    Args:
        model: an ordinary Pyro model.
        guide: its guide, if it has one.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        objective: whose costs and estimators are shown; None for `ELBO` with a guide, `ExpectedReturn` without.
        seed: of the run.

    Returns:
        A `ProgramDependence`, with ``table``, a row for each site, and ``plot()``.

    Raises:
        InvalidInput: ``seed`` is no integer that generators take.
        InvalidProgram: the program is not one that the objective or Pyro accepts.
        Unsupported: an estimator cannot serve a site that it was chosen for.

    Source: Schulman, Heess, Weber & Abbeel (2015), Gradient estimation using stochastic computation graphs,
    definition 1.

    >>> import pyro, torch, pyro.distributions as dist, ppgrad
    >>> def program():
    ...     logits = pyro.param("logits", torch.zeros(()))
    ...     a, b = (ppgrad.policy(name, dist.Bernoulli(logits=logits)) for name in "ab")
    ...     ppgrad.reward("of_a", a)
    ...     ppgrad.reward("of_both", a * b)
    >>> ppgrad.dependence(program).table["charged_with"].tolist()
    ['of_a, of_both', 'of_both', '', '']
    """
    objective = objective or (ExpectedReturn() if guide is None else ELBO())
    with pure(seed, program_of(model, guide, args, kwargs)):
        executor = objective.prepare(model, guide, args, kwargs).executor
    found = next(iter(executor.known.dependences.values()))
    served = dict(executor.setup.assignment.served())
    estimators = [repr(served[site.name]) if site.is_random and site.name in served else "" for site in found.sites]
    return ProgramDependence([_described(found, i, estimators[i]) for i in range(len(found.sites))], found.notes)


def _described(found: Dependence, place: int, estimator: str) -> SiteDependence:
    site = found.sites[place]
    own = 1 << place
    return SiteDependence(
        name=site.name,
        in_guide=place < found.guide_sites,
        is_draw=site.is_random,
        has_cost=site.has_cost,
        plates=tuple(plate.name for plate in sorted(site.plates, key=lambda plate: plate.dim)),
        estimator=estimator,
        computed_from=tuple(_names(found, (found.values[place] | found.costs[place]) & ~own)),
        charged_with=tuple(_names(found, found.reached[place])) if site.is_random else (),
        coupled=tuple(sorted(plate.name for plate in found.coupled(place))) if site.is_random else (),
    )


def _names(found: Dependence, places: int) -> list[str]:
    """The names of some sites; one that guide and model both have is named once."""
    return list(dict.fromkeys(found.sites[i].name for i in members(places)))
