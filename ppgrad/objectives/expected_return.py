"""The expected sum of rewards."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ppgrad.core import Estimator, InvalidProgram
from ppgrad.core.arguments import discount_factor
from ppgrad.engine.running.site import Site
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

    Raises:
        InvalidInput: ``discount`` is outside of (0, 1].

    Source: Sutton & Barto (2018), Reinforcement Learning, eq. 3.8.
    """

    model_may_draw: ClassVar[bool] = True

    def __init__(self, estimator: Estimator | None = None, *, discount: float = 1.0, **options: Any):
        discount_factor(type(self).__name__, discount)
        super().__init__(estimator, **options)
        self.discount = discount

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        return return_costs(sites, self.discount)

    def discounts(self, sites: Sequence[Site]) -> list[float]:
        return discounts_to_come(sites, self.discount)


def return_costs(sites: Sequence[Site], discount: float) -> list[Tensor | None]:
    """Minus the discounted reward of each reward site.

    Raises:
        InvalidProgram: there is no reward site.
    """
    if not any(site.kind == "reward" for site in sites):
        there = ", ".join(site.name for site in sites) or "none"
        raise InvalidProgram(
            f"The program has no reward site; its sites: {there}. "
            "Write ppgrad.reward(name, value) where a reward is earned."
        )
    costs: list[Tensor | None] = []
    for site, time in zip(sites, reward_times(sites), strict=True):
        if site.kind == "factor":
            _warn_of_factor(site.name)
        if time is None:
            costs.append(None)
        else:
            costs.append(-site.weighted_log_prob if discount == 1.0 else -(discount**time) * site.weighted_log_prob)
    return costs


def reward_times(sites: Sequence[Site]) -> list[int | None]:
    """The time of each reward site, None for any other."""
    times: list[int | None] = []
    before: dict[Any, int] = {}
    for site in sites:
        time = site.infer.get("time") if site.kind == "reward" else None
        if site.kind == "reward" and time is None:
            time = before.get(site.sequence, 0)
            before[site.sequence] = time + 1
        times.append(time)
    return times


def discounts_to_come(sites: Sequence[Site], discount: float) -> list[float]:
    """For each site the discount of the next reward from there on."""
    if discount == 1.0:
        return [1.0] * len(sites)
    found, latest = [], 0
    times = reward_times(sites)
    if any(time is not None for time in times):
        latest = next(time for time in reversed(times) if time is not None)
    for time in reversed(times):
        latest = latest if time is None else time
        found.append(discount**latest)
    return found[::-1]


def _warn_of_factor(name: str) -> None:
    warnings.warn(
        f"The return leaves out the factor '{name}': it adds up reward sites. "
        "Write ppgrad.reward(name, value), or use ELBO.",
        stacklevel=2,
    )
