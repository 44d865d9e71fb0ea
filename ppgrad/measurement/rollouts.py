"""`rollouts`: runs of a program as an ArviZ object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppgrad.analysis.arviz import container
from ppgrad.core import Estimator, InvalidProgram, Plates, SumsOver
from ppgrad.core.arguments import at_least
from ppgrad.core.generators import random_state, set_random_state
from ppgrad.engine.assignment.assignment import Assignment
from ppgrad.engine.checking.own_state import Ran, own_state
from ppgrad.engine.program.program import Program, program_of
from ppgrad.engine.running.execution import run, sites_of
from ppgrad.engine.running.lanes import CannotVectorize, LaneTensors, note_of_loop, vectorizable, vectorized
from ppgrad.engine.running.sampler import Sampler, Sizes
from ppgrad.engine.running.site import Site
from ppgrad.estimators import ScoreFunction
from ppgrad.measurement.gradient import pure

_Run = dict[str, Tensor]
_KINDS = ("draw", "noise", "observed", "reward")


def rollouts(
    program: Callable[..., Any],
    args: tuple[Any, ...] = (),
    num: int = 100,
    seed: int = 0,
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Run a program ``num`` times and give its traces to ArviZ.

    Args:
        program: an ordinary Pyro model.
        args: its positional arguments.
        num: how many runs; they are split into two chains if the number is even.
        seed: the runs are a function of it; global state is left alone.
        kwargs: the program's keyword arguments.

    Returns:
        An ``InferenceData`` (ArviZ 0.23) or ``DataTree`` (1.x) with the groups ``rollouts`` (each
        site; ``reward`` with chain, draw, time; their sum ``ret`` with chain, draw) and
        ``rollouts_log_prob`` (the log density of each random or observed site). A site that some
        runs did not reach is NaN there. Rewards carry Pyro's scale and mask, and are summed over
        plates in ``reward``; each reward site is there by its own name too.

    Raises:
        InvalidInput: ``num`` < 1.
    """
    at_least("rollouts", "num", num, 1)
    ready = program_of(program, None, args, kwargs)
    with pure(seed, ready), torch.no_grad():
        runs, plates = _runs(ready, num)
    chains = 2 if num % 2 == 0 else 1
    values: dict[str, Any] = {}
    log_probs: dict[str, Any] = {}
    rewards: list[np.ndarray] = []
    for key in dict.fromkeys(key for one in runs for key in one):
        group, name = key.split(":", 1)
        array = _ragged([one.get(key) for one in runs])
        variable = _variable(name)
        dims = ("chain", "draw", *_dims(variable, array[0].ndim, plates.get(name, frozenset())))
        there = log_probs if group == "log_prob" else values
        if variable in there:
            raise InvalidProgram(f"Two sites would be '{variable}' in the rollouts, '{name}' one of them. Rename it.")
        there[variable] = (dims, array.reshape(chains, num // chains, *array.shape[1:]))
        if group == "reward":
            rewards.append(array.reshape(num, -1).sum(1))
    if rewards:
        reward = np.stack(rewards, -1).reshape(chains, num // chains, -1)
        values["reward"] = (("chain", "draw", "time"), reward)
        values["ret"] = (("chain", "draw"), np.nansum(reward, -1))
    return container({"rollouts": _dataset(values), "rollouts_log_prob": _dataset(log_probs)}, {"seed": seed})


def _runs(program: Program, num: int) -> tuple[list[_Run], dict[str, Plates]]:
    """Every run's numbers, by ``group:site``, and the sites' plates."""
    assignment = Assignment("rollouts", None, _drawn)
    plates: dict[str, Plates] = {}

    def sites() -> list[Site]:
        sampler = Sampler(assignment, Sizes(num), {}, copies=True)
        return sites_of(*run(program, sampler), sampler)

    def one() -> _Run:
        numbers: _Run = {}
        for site in sites():
            if site.kind not in _KINDS:
                continue
            plates[site.name] = site.plates
            if site.kind == "reward":
                numbers[f"reward:{site.name}"] = site.weighted_log_prob
            else:
                numbers[f"value:{site.name}"] = site.value
                numbers[f"log_prob:{site.name}"] = site.density
        return numbers

    def lane(token: Tensor) -> _Run:
        with LaneTensors(token, {}) as mode:
            return mode.own(one())

    def ran() -> Ran:
        found = sites()
        return found, [site.reward if site.kind == "reward" else None for site in found]

    state = random_state()
    try:
        own = own_state(program, ran(), state, ran)
        set_random_state(state)
        if own is not None:
            raise CannotVectorize(own)
        with vectorizable():
            stacked = vectorized(lane, lanes=num)
        return [{key: tensor[i] for key, tensor in stacked.items()} for i in range(num)], plates
    except Exception as error:
        note_of_loop(program.model, error)
        set_random_state(state)
        return [one() for _ in range(num)], plates


def _drawn(message: Mapping[str, Any]) -> Estimator | None:
    """Draws a site that an objective would sum over: a run has one value of it."""
    infer = message["infer"]
    sums = infer.get("enumerate") is not None or isinstance(infer.get("gradient"), SumsOver)
    return ScoreFunction() if sums else None


def _variable(name: str) -> str:
    """A site's name as that of a variable: a slash separates groups there, and some names are taken."""
    name = name.replace("/", ".")
    return f"site_{name}" if name in ("reward", "ret", "chain", "draw", "time") else name


def _dims(name: str, ndim: int, plates: Plates) -> list[str]:
    """Names of a site's dimensions: its plates', then numbered; prefixed, since no two sites share one."""
    by_dim = {plate.dim: plate.name.replace("/", ".") for plate in plates}
    batch = max((-dim for dim in by_dim), default=0)
    names = [f"{name}_{by_dim.get(i - batch, f'batch_{i}')}" for i in range(min(batch, ndim))]
    return names + [f"{name}_dim_{i}" for i in range(ndim - len(names))]


def _ragged(runs: list[Tensor | None]) -> np.ndarray:
    """Stack the runs' numbers, NaN where a run has none or less."""
    arrays = [None if one is None else one.numpy(force=True) for one in runs]
    present = [array for array in arrays if array is not None]
    if len(present) == len(arrays) and len({array.shape for array in present}) == 1:
        return np.stack(present)
    shape = tuple(np.max([array.shape for array in present], axis=0).astype(int))
    stacked = np.full((len(arrays), *shape), np.nan)
    for i, array in enumerate(arrays):
        if array is not None:
            stacked[(i, *(slice(size) for size in array.shape))] = array  # type: ignore[index]
    return stacked


def _dataset(variables: dict[str, Any]) -> Any:
    import xarray

    sizes = {dim: size for dims, array in variables.values() for dim, size in zip(dims, array.shape, strict=True)}
    coords = {dim: np.arange(sizes[dim]) for dim in ("chain", "draw") if dim in sizes}
    return xarray.Dataset(variables, coords=coords)
