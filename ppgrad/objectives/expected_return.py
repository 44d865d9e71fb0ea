"""The expected sum of rewards."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ppgrad.core import Estimator, InvalidInput, InvalidProgram
from ppgrad.engine.record import Site
from ppgrad.objectives.objective import Objective


class ExpectedReturn(Objective):
    """J = E[Σ_t γ^t r_t], over every random site of the program.

    The rewards are the program's reward sites, with the scale and the mask that Pyro gives them.
    Observed sites carry no reward. With a guide, the guide draws the sites that it names and the
    model is run with those values.

    Args:
        estimator: serves every site that nothing else chooses for.
        discount: γ in (0, 1]; t counts the reward sites before this one, in its own iteration of a
            sequential plate, or is given as ``reward(…, time=t)``.
        options: see `Objective`.

    Source: Sutton & Barto (2018), Reinforcement Learning, eq. 3.8.
    """

    model_may_draw: ClassVar[bool] = True

    def __init__(self, estimator: Estimator | None = None, *, discount: float = 1.0, **options: Any):
        if not 0.0 < discount <= 1.0:
            raise InvalidInput(f"ExpectedReturn(discount={discount}): discount lies in (0, 1].")
        super().__init__(estimator, **options)
        self.discount = discount

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        costs: list[Tensor | None] = []
        times: dict[Any, int] = {}
        for site in sites:
            if site.kind != "reward":
                if site.kind == "factor":
                    _warn_of_factor(site.name)
                costs.append(None)
                continue
            time = site.infer.get("time")
            if time is None:
                time = times.get(site.sequence, 0)
                times[site.sequence] = time + 1
            cost = -site.log_prob
            costs.append(cost if self.discount == 1.0 else self.discount**time * cost)
        if not any(site.kind == "reward" for site in sites):
            there = ", ".join(site.name for site in sites) or "none"
            raise InvalidProgram(
                f"ExpectedReturn found no reward site; the program's sites: {there}. "
                "Write ppgrad.reward(name, value) where a reward is earned."
            )
        return costs


def _warn_of_factor(name: str) -> None:
    warnings.warn(
        f"ExpectedReturn leaves out the factor '{name}': it adds up reward sites. "
        "Write ppgrad.reward(name, value), or use ELBO.",
        stacklevel=2,
    )
