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
        return return_costs(sites, self.discount)


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
    times: dict[Any, int] = {}
    for site in sites:
        if site.kind == "factor":
            _warn_of_factor(site.name)
        if site.kind != "reward":
            costs.append(None)
            continue
        time = site.infer.get("time")
        if time is None:
            time = times.get(site.sequence, 0)
            times[site.sequence] = time + 1
        costs.append(-site.log_prob if discount == 1.0 else -(discount**time) * site.log_prob)
    return costs


def _warn_of_factor(name: str) -> None:
    warnings.warn(
        f"The return leaves out the factor '{name}': it adds up reward sites. "
        "Write ppgrad.reward(name, value), or use ELBO.",
        stacklevel=2,
    )
