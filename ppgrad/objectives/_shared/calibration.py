"""Held-out runs: what estimators with gates learn of a gradient before they weigh it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from ppgrad.core import Calibrates, Estimator, Memory, Pilot, PpgradError
from ppgrad.core.generators import other_draws, random_state, set_random_state
from ppgrad.engine.checking.first_run import Prepared, where_the_cost_jumps
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.lanes import vectorizable, vectorized

RUNS = 256
"""How many held-out gradients a calibration takes."""

DIRECTIONS = 4
"""On how many random directions each of them is projected."""

EVERY = 100
"""After how many gradients training calibrates again."""


class Estimates(Protocol):
    """What a calibration needs of an objective."""

    memory: dict[str, Memory]

    def estimate(
        self,
        executor: Executor,
        token: Tensor | float = 0.0,
        replacements: Mapping[int, Tensor] | None = None,
        memory: Mapping[str, Memory] | None = None,
    ) -> Any: ...


def calibrated(objective: Estimates, prepared: Prepared) -> dict[str, Memory]:
    """The gates of every site that has some, from runs that no caller sees."""
    served = prepared.executor.setup.assignment.served()
    sites = {name: member for name, member in served if isinstance(member, Calibrates) and member.gates}
    if not sites or not prepared.parameters:
        return {}
    with other_draws(), torch.enable_grad():
        gated = {name: estimator.gates for name, estimator in sites.items()}
        jumps = where_the_cost_jumps(prepared.executor, [n for n, each in sites.items() if each.facts.finds_jumps])
        total, effects = _effects(objective, prepared, gated)
        pilots = {
            name: Pilot(total, effects[name], _pooled(effects, sites, type(estimator), jumps), name in jumps)
            for name, estimator in sites.items()
        }
        return {name: dict(estimator.calibrate(pilots[name])) for name, estimator in sites.items()}


def recalibrated(objective: Estimates, prepared: Prepared) -> dict[str, Memory]:
    """What the objective remembers of the sites that a new calibration says something of, that in place of the old."""
    return {
        site: {**objective.memory.get(site, {}), **values} for site, values in calibrated(objective, prepared).items()
    }


def recalled(objective: Estimates, prepared: Prepared) -> dict[str, Memory]:
    """What the objective remembers; where it remembers no gates, those of a calibration."""
    remembered = objective.memory
    served = prepared.executor.setup.assignment.served()
    gated = [(name, member.gates) for name, member in served if isinstance(member, Calibrates) and member.gates]
    if all(set(gates) & set(remembered.get(name, {})) for name, gates in gated):
        return remembered
    fresh = calibrated(objective, prepared)
    return {name: {**fresh.get(name, {}), **remembered.get(name, {})} for name in {*fresh, *remembered}}


def _pooled(
    effects: Mapping[str, Mapping[str, Tensor]],
    sites: Mapping[str, Estimator],
    kind: type[Estimator],
    jumps: frozenset[str],
) -> dict[str, Tensor]:
    """The effects of each gate, added up over the sites of one kind of estimator."""
    pooled: dict[str, Tensor] = {}
    for name, estimator in sites.items():
        if type(estimator) is kind and name not in jumps:
            for gate, effect in effects[name].items():
                pooled[gate] = pooled[gate] + effect if gate in pooled else effect
    return pooled


Effects = tuple[Tensor, dict[str, dict[str, Tensor]]]
"""Projections of the gradient, and of its derivative with respect to each gate of each site."""


def _effects(objective: Estimates, prepared: Prepared, gated: Mapping[str, Mapping[str, float]]) -> Effects:
    keys = [(name, gate) for name, gates_there in gated.items() for gate in gates_there]
    originals = list(prepared.parameters.values())
    device = originals[0].device if originals else None
    gates = [torch.full((RUNS,), gated[name][gate], device=device, requires_grad=True) for name, gate in keys]
    state = random_state()
    executor = prepared.executor
    totals: list[Tensor] = []
    effects: list[list[Tensor]] = []
    directions = [[torch.randn_like(leaf) for leaf in originals] for _ in range(DIRECTIONS)]

    def memory_of(values: Any) -> dict[str, Memory]:
        memory = dict(objective.memory)
        for (name, gate), value in zip(keys, values, strict=True):
            memory[name] = {**memory.get(name, {}), gate: value}
        return memory

    if executor.vectorize:
        lanes = [leaf.detach().expand(RUNS, *leaf.shape).requires_grad_() for leaf in originals]

        def one(token: Tensor, parameters: list[Tensor], values: list[Tensor]) -> Tensor:
            replacements = {id(old): new for old, new in zip(originals, parameters, strict=True)}
            return objective.estimate(executor, token, replacements, memory_of(values)).surrogate

        try:
            with vectorizable():
                surrogates = vectorized(one, lanes, gates, lanes=RUNS)
            gradients = _gradients(surrogates.sum(), lanes)
            for direction in directions:
                products = zip(gradients, direction, strict=True)
                projected = torch.stack([(g * d).reshape(RUNS, -1).sum(1) for g, d in products]).sum(0)
                totals.append(projected.detach())
                effects.append(_gradients(projected.sum(), gates, again=True))
            return _collected(keys, totals, effects)
        except PpgradError:
            raise
        except Exception as error:
            executor.fall_back(error)
            set_random_state(state)
            totals, effects = [], []
    singles: list[tuple[list[Tensor], list[list[Tensor]]]] = []
    for run in range(RUNS):
        values = [gate[run].detach().requires_grad_() for gate in gates]
        gradients = _gradients(objective.estimate(executor, memory=memory_of(values)).surrogate, originals)
        projected_on = [
            torch.stack([(g * d).sum() for g, d in zip(gradients, direction, strict=True)]).sum()
            for direction in directions
        ]
        singles.append(([p.detach() for p in projected_on], [_gradients(p, values, again=True) for p in projected_on]))
    for i in range(DIRECTIONS):
        totals.append(torch.stack([total[i] for total, _ in singles]))
        effects.append([torch.stack([effect[i][k] for _, effect in singles]) for k in range(len(keys))])
    return _collected(keys, totals, effects)


def _collected(keys: list[tuple[str, str]], totals: list[Tensor], effects: list[list[Tensor]]) -> Effects:
    found: dict[str, dict[str, Tensor]] = {}
    for k, (name, gate) in enumerate(keys):
        found.setdefault(name, {})[gate] = torch.stack([effect[k] for effect in effects]).detach()
    return torch.stack(totals), found


def _gradients(output: Tensor, inputs: list[Tensor], again: bool = False) -> list[Tensor]:
    if not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in inputs]
    found = torch.autograd.grad(output, inputs, create_graph=not again, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(inputs, found, strict=True)]
