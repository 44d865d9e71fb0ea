"""A program run again with the values that it drew, but for some of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pyro
import torch
from torch import Tensor

from ppgrad.core.generators import undisturbed
from ppgrad.engine.running.execution import run, sites_of
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.fixed_parameters import Again, Traces, values_drawn
from ppgrad.engine.running.lanes import vectorizable
from ppgrad.engine.running.sampler import Sampler
from ppgrad.engine.running.site import Site


class HeldRuns:
    """Runs of a program with the draws and the subsamples of an earlier run.

    All of them begin with the generators in the same state.

    Args:
        executor: runs the program.
        sampler, traces: of the earlier run.

    Attributes:
        values: of each draw and each subsample, without a graph.
    """

    def __init__(self, executor: Executor, sampler: Sampler, traces: Traces):
        self._executor, self._sampler = executor, sampler
        self.values = {name: value.detach() for name, value in values_drawn(traces, sampler).items()}

    @property
    def vectorizes(self) -> bool:
        """Whether many runs may be one under vmap."""
        return self._executor.vectorize

    def terms(self, values: Mapping[str, Tensor], count: int, sites: Sequence[Site]) -> list[list[Tensor]]:
        """For each of ``sites`` its cost and its density, ``(count, …)``, what there is; all runs share one seed.

        Args:
            values: of draws, ``(count, …)``.
            count: how many runs there are.
            sites: of a run like these.
        """
        if self.vectorizes:
            try:
                with vectorizable(), torch.no_grad():
                    return torch.vmap(lambda moved: self._terms(moved, sites), randomness="same")(dict(values))
            except Exception as error:
                logging.getLogger("ppgrad").debug("Runs with held values go one by one: %s", error)
        runs = [self._terms({name: value[i] for name, value in values.items()}, sites) for i in range(count)]
        return [[torch.stack(terms) for terms in zip(*by_run, strict=True)] for by_run in zip(*runs, strict=True)]

    def _terms(self, moved: Mapping[str, Tensor], sites: Sequence[Site]) -> list[list[Tensor]]:
        rerun, costs = self.run(moved)
        there = {(site.name, site.in_guide): (site, cost) for site, cost in zip(rerun, costs, strict=True)}
        found: list[list[Tensor]] = []
        for site in sites:
            again, cost = there.get((site.name, site.in_guide), (None, None))
            terms = [cost, again.density if again is not None and again.is_random else None]
            found.append([term.detach() for term in terms if term is not None])
        return found

    def run(self, moved: Mapping[str, Tensor]) -> tuple[list[Site], Sequence[Tensor | None]]:
        """The sites of a run in which the draws of ``moved`` have other values, and the cost of each."""
        with undisturbed(), pyro.validation_enabled(False):
            held = Again({**self.values, **moved}, self._sampler.drawn, self._sampler.copies, self._sampler.summing)
            sites = sites_of(*run(self._executor.program, held), held)
            return sites, self._executor.setup.costs(sites)
