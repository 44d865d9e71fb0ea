"""What replicates may miss: values so rare that few or none of them are drawn, and that decide the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppgrad.core import Estimator, PpgradError
from ppgrad.core.generators import generator_state, restore_generators
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.dependence.sums import members
from ppgrad.engine.program.program import program_of
from ppgrad.engine.running.record import Record
from ppgrad.engine.running.site import site_info
from ppgrad.estimators import Enumerate, ScoreFunction
from ppgrad.measurement.exact import prepared_to_sum
from ppgrad.measurement.gradient import pure
from ppgrad.objectives import Objective

_DRAWN_OFTEN = 14
"""A value that is drawn so often in expectation is drawn once or never with probability 1e-5."""

_DRAWS_OF_OTHERS = 8
"""Over how many draws of sites that cannot be summed over an outcome is averaged."""

_LOOPED = 200
"""How many branches of a program that vmap cannot carry are worth a loop."""

_MOST_OUTCOMES = 4096
_MOST_NUMBERS = 5_000_000


@dataclass(frozen=True)
class Outcomes:
    """The joint values of a program's discrete sites, for each cost on its own, and what each adds to the gradient.

    Args:
        probability: of each outcome, shape (outcomes,).
        effect: size of what it adds to each component, at most: |∂(p f)| + E|f| |∂p|, by parameter, shape
            (outcomes, *shape). The second term is what a baseline may add.
        cost: which cost the outcome is of, shape (outcomes,).
        decides: values are said to decide a component from this share of its second moment on.
        share: of how many runs' weight one outcome is: one for an outcome, 1/K for a mean over K.
        sampled: whether the outcomes are a long run's draws, not all there are.
    """

    probability: np.ndarray
    effect: dict[str, np.ndarray]
    cost: np.ndarray
    decides: float = 0.25
    share: float = 1.0
    sampled: bool = False

    def unseen(self, runs: int) -> dict[str, np.ndarray]:
        """The standard error that values too rare for so many runs of the program give a mean of score functions.

        For each component, and each cost, the outcomes of largest effect / probability are taken that are drawn 14
        times or less altogether. √(Σ effect² / probability / draws) of them, where they are ``decides`` or more of the
        same sum over all outcomes; 0 elsewhere.
        """
        draws = runs * self.share
        most = _DRAWN_OFTEN / draws
        return {name: self._unseen(effect, most, draws) for name, effect in self.effect.items()}

    def _unseen(self, effect: np.ndarray, most: float, draws: float) -> np.ndarray:
        flat = effect.reshape(len(effect), -1)
        moment = np.square(flat) / self.probability[:, None]
        rare = np.zeros(flat.shape[1])
        for cost in np.unique(self.cost[self.probability <= most]):
            places = np.flatnonzero((self.cost == cost) & (self.probability <= most))
            probability = self.probability[places]
            order = np.argsort(-flat[places] / probability[:, None], axis=0)
            taken = np.cumsum(probability[order], axis=0) <= most
            rare += np.where(taken, np.take_along_axis(moment[places], order, axis=0), 0).sum(0)
        decides = rare >= self.decides * moment.sum(0)
        return np.sqrt(np.where(decides, rare, 0) / draws).reshape(effect.shape[1:])


def outcomes(
    objective: Objective, model: Callable[..., Any], guide: Any, args: Any, kwargs: Any, seed: int
) -> Outcomes | None:
    """The outcomes of a program whose discrete sites can be summed over, other sites being drawn a few times.

    None for another program, and for an objective that is no sum over costs.
    """
    if objective.couples_lanes:
        return None
    exact = objective.with_choice(_sums_over, _DRAWS_OF_OTHERS)
    try:
        with pure(seed, program_of(model, guide, args, kwargs)):
            return _outcomes(prepared_to_sum(exact, model, guide, args, kwargs, _LOOPED))
    except PpgradError:  # too large, or not finite at a value that the replicates need not meet: nothing is known
        return None


def _sums_over(message: Mapping[str, Any]) -> Estimator | None:
    info = site_info(message, _DRAWS_OF_OTHERS)
    return next((each for each in (Enumerate(), ScoreFunction()) if each.refusal(info) is None), None)


def outcomes_of_draws(draws: Mapping[str, np.ndarray], particles: int) -> Outcomes:
    """A long run's gradients as outcomes that are equally likely, each of them a mean over ``particles`` runs.

    Values decide where they are nine tenths of the second moment: among gradients of other kinds a few are large, too.
    """
    count = len(next(iter(draws.values())))
    effect = {name: np.abs(each - each.mean(0, dtype=float)) / count for name, each in draws.items()}
    return Outcomes(np.full(count, 1 / count), effect, np.zeros(count, int), 0.9, 1 / particles, True)


def unseen_by(prepared: Prepared, known: Outcomes | None, replicates: int) -> dict[str, np.ndarray] | None:
    """The standard error due to values that the replicates of one objective may lack; None where none can be.

    An estimator that sums a site up sees every value of it. A reparameterized gradient is not as large as that of a
    long run of the score function where the latter is large.
    """
    used = prepared.executor.setup.assignment.used()
    if known is None or all(isinstance(each, Enumerate) for each in used):
        return None
    if known.sampled and any(each.account.reparameterized for each in used):
        return None
    return known.unseen(replicates * prepared.executor.particles)


def _outcomes(prepared: Prepared) -> Outcomes | None:
    executor = prepared.executor
    executor.execute()  # the grid grows where a cost couples plates
    state = generator_state()
    costs = executor.execute()
    restore_generators(state)
    weights = _weights(prepared)
    if not executor.known.grid.sites or not prepared.parameters or len(costs) != 1 or len(weights) != 1:
        return None
    terms = [
        (_grouped(cost, weight, group), _grouped(weight, weight, group))
        for cost, weight, group in zip(costs[0].costs, weights[0].costs, _groups(prepared, costs[0]), strict=True)
    ]
    sizes = [len(cost) for cost, _ in terms]
    numbers = sum(parameter.numel() for parameter in prepared.parameters.values())
    if sum(sizes) > _MOST_OUTCOMES or sum(sizes) * numbers > _MOST_NUMBERS:
        return None
    cost, weight = (torch.cat(column) for column in zip(*terms, strict=True))
    scales = torch.cat([each.detach().abs().sum().expand(len(each)) for each, _ in terms])
    first, second = _jacobian(cost, prepared.parameters), _jacobian(weight, prepared.parameters)
    effect = {
        name: (first[name].abs() + _aligned(scales, first[name]) * second[name].abs()).double().numpy(force=True)
        for name in prepared.parameters
    }
    probability = weight.detach().double().numpy(force=True)
    possible = probability > 0
    places = np.repeat(np.arange(len(sizes)), sizes)
    return Outcomes(probability[possible], {n: e[possible] for n, e in effect.items()}, places[possible])


def _groups(prepared: Prepared, record: Record) -> list[Tensor]:
    """For each cost the outcome of each lane: the joint value of the sites that the cost depends on."""
    grid = prepared.executor.known.grid
    columns = {name: index.reshape(len(index), -1).cpu() for name, index in grid.indices().items()}
    found = []
    for place, entry in enumerate(record.entries):
        if entry.cost is None:
            continue
        names = [record.entries[i].name for i in members(record.dependence.reaching_cost[place])]
        rows = [columns[name] for name in dict.fromkeys(names) if name in columns]
        every = torch.zeros(grid.points, 1, dtype=torch.long)
        found.append(torch.unique(torch.cat([every, *rows], 1), dim=0, return_inverse=True)[1])
    return found


def _weights(prepared: Prepared) -> list[Record]:
    """The records of the same run with a cost of one at each cost."""
    executor = prepared.executor
    costs = executor.setup.costs
    ones = replace(
        executor.setup, costs=lambda sites: [None if c is None else torch.ones_like(c) for c in costs(sites)]
    )
    return replace(executor, setup=ones).execute()


def _grouped(term: Tensor, weight: Tensor, group: Tensor) -> Tensor:
    """A weighted cost, (particles, points, *plates), for each outcome and each element of its plates, flat."""
    whole = (term + torch.zeros_like(weight)).mean(0)
    lanes = whole.reshape(len(whole), -1)
    zeros = lanes.new_zeros(int(group.max()) + 1, lanes.shape[1])
    return zeros.index_add(0, group.to(lanes.device), lanes).reshape(-1)


def _jacobian(terms: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    leaves = list(parameters.values())
    if not terms.requires_grad:
        return {name: torch.zeros(len(terms), *leaf.shape) for name, leaf in parameters.items()}
    rows: list[list[Tensor]] = []
    for place in range(len(terms)):
        found = torch.autograd.grad(terms[place], leaves, retain_graph=True, materialize_grads=True)
        rows.append(list(found))
    return {name: torch.stack(column) for name, column in zip(parameters, zip(*rows, strict=True), strict=True)}


def _aligned(scales: Tensor, like: Tensor) -> Tensor:
    return scales.reshape(-1, *[1] * (like.dim() - 1)).to(like.device)
