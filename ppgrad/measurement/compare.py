"""`compare`: several estimators of one gradient, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from ppgrad.analysis import Comparison, EstimatorDraws
from ppgrad.baselines import LeaveOneOut
from ppgrad.core import Estimator, InvalidInput
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.program.program import program_of
from ppgrad.engine.running.site import site_info
from ppgrad.estimators import Pathwise, ScoreFunction
from ppgrad.measurement.gradient import check_objective, pure
from ppgrad.measurement.measure import Gradients, check_counts, known_reference, ready
from ppgrad.measurement.rare import outcomes, outcomes_of_draws, unseen_by
from ppgrad.measurement.replicates import default_chunk_size, replicate
from ppgrad.measurement.step_time import seconds_per_step
from ppgrad.objectives import Objective

_LONG_RUN = 10
"""How many times more program executions a long run takes than a measured estimator."""

_LONG_RUN_PARTICLES = 8


def compare(
    objectives: Mapping[str, Objective],
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
    reference: Gradients | None = None,
    chunk_size: int | None = None,
    name: str = "",
    progress: bool = False,
) -> Comparison:
    """Measure several ways to estimate one gradient, under common seeds.

    The bias is against the reference: the one given; else the exact gradient, where the program is
    small enough; else a long run of the score function with leave-one-out (pathwise where it must),
    marked as such, with its own uncertainty in the bands. Where discrete values decide that are too rare for the
    replicates, which enumeration or the long run knows, the bands are wider and the verdict is 'inconclusive'.
    A gradient is timed twice: among the replicates, and alone as in a training step, the objectives taking turns.

    Args:
        objectives: by label: one objective, with different estimators.
        model, guide, args, kwargs, replicates, seed, reference, chunk_size: as for `measure`.
        name: what the pictures are titled with.
        progress: show a progress bar on a terminal.

    Returns:
        Each objective's replicates by its label, of shape (replicates, *shape) by parameter, with the reference.

    Raises:
        InvalidInput: no objectives, or objectives of different kinds.
    """
    check_counts(replicates, chunk_size)
    _check_one_kind(objectives)
    first = next(iter(objectives.values()))
    estimators: dict[str, EstimatorDraws] = {}
    with pure(seed, program_of(model, guide, args, kwargs)):
        prepared = {label: ready(o, model, guide, args, kwargs) for label, o in objectives.items()}
        chunk_size = chunk_size or min(map(default_chunk_size, prepared.values()))
        exact, kind = known_reference(next(iter(prepared.values())), first, model, guide, args, kwargs, reference)
        known = outcomes(first, model, guide, args, kwargs, seed)
        uncertainty = None
        with tqdm(total=len(objectives) + (exact is None), disable=None if progress else True, leave=False) as bar:
            if exact is None:
                bar.set_description("reference")
                exact, uncertainty, draws = _long_run(first, model, guide, args, kwargs, replicates, seed)
                known = known or outcomes_of_draws(_arrays(draws), _LONG_RUN_PARTICLES)
                kind = "long run of score function with leave-one-out"
                bar.update()
            for label, objective in objectives.items():
                bar.set_description(label)
                estimators[label] = replace(
                    _draws(objective, prepared[label], replicates, seed, chunk_size),
                    unseen=unseen_by(prepared[label], known, replicates),
                )
                bar.update()
            steps = seconds_per_step(objectives, lambda o: o.prepare(model, guide, args, kwargs))
    return Comparison(
        estimators={label: replace(one, seconds_per_step=steps[label]) for label, one in estimators.items()},
        reference=_arrays(exact),
        reference_mcse=None if uncertainty is None else _arrays(uncertainty),
        reference_kind=kind,
        seed=seed,
        name=name,
    )


def _check_one_kind(objectives: Mapping[str, Objective]) -> None:
    if not isinstance(objectives, Mapping):
        raise InvalidInput(f"compare() takes {{label: objective}}, not {objectives!r}.")
    for objective in objectives.values():
        check_objective(objective)
    kinds = {objective.wanted.__name__ for objective in objectives.values()}
    if len(kinds) != 1:
        raise InvalidInput(
            f"compare() takes one kind of objective with different estimators, not {sorted(kinds)}. "
            "Pass {label: objective} with one class of objective."
        )


def _draws(objective: Objective, prepared: Prepared, replicates: int, seed: int, chunk_size: int) -> EstimatorDraws:
    """Replicates of one objective's gradient, timed after a first two that warm up."""
    replicate(objective, prepared, 2, seed, chunk_size)
    found = replicate(objective, prepared, replicates, seed, chunk_size)
    facts = [objective.facts, *(e.account for e in prepared.executor.setup.assignment.used())]
    biases = [fact for fact in facts if fact.biased]
    return EstimatorDraws(
        draws=_arrays(found.draws),
        evaluations=found.evaluations,
        seconds=found.seconds,
        biased=bool(biases),
        order=", ".join(fact.order for fact in biases if fact.order),
        description=repr(objective),
        magnitude=float(found.losses.double().abs().mean()),
    )


def _long_run(
    objective: Objective, model: Any, guide: Any, args: Any, kwargs: Any, replicates: int, seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The mean of a long run's gradients, its standard error and the gradients, by parameter, in ascent's direction."""

    def choose(message: Mapping[str, Any]) -> Estimator | None:
        score = ScoreFunction(LeaveOneOut())
        info = site_info(message, _LONG_RUN_PARTICLES)
        if score.refusal(info) is None:
            return score
        return Pathwise() if Pathwise().refusal(info) is None else None

    long = objective.with_choice(choose, _LONG_RUN_PARTICLES)
    count = max(100, _LONG_RUN * replicates // _LONG_RUN_PARTICLES)
    # Common seeds are for pairs of estimators; the reference is independent of them.
    found = replicate(long, ready(long, model, guide, args, kwargs), count, seed + 2**31, None)
    mean = {name: draws.double().mean(0) for name, draws in found.draws.items()}
    mcse = {name: draws.double().std(0) / count**0.5 for name, draws in found.draws.items()}
    return mean, mcse, found.draws


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy(force=True) for name, tensor in tensors.items()}
