"""`measure`: bias, variance and cost of one way to estimate a gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppgrad.analysis import describe, pareto_khat, smallest_bias_found
from ppgrad.core import CannotBeExact, InvalidInput
from ppgrad.core.arguments import at_least
from ppgrad.engine.checking.first_run import Prepared, program_elements
from ppgrad.engine.program.program import program_of
from ppgrad.measurement.exact import exact_gradient
from ppgrad.measurement.gradient import check_gradients_named, check_objective, pure
from ppgrad.measurement.rare import outcomes, unseen_by
from ppgrad.measurement.replicates import Replicates, replicate, weighed
from ppgrad.measurement.step_time import seconds_per_step
from ppgrad.objectives import Objective

Gradients = Mapping[str, Tensor]


@dataclass(frozen=True)
class Measurement:
    """What replicates of one gradient estimate say of it; dicts are by parameter.

    Args:
        draws: the estimates, ``(replicates, *shape)`` each, in the direction of ascent.
        mean: their mean; ``mcse`` is its standard error.
        variance: of a single estimate; ``variance_mcse`` is its standard error.
        snr: |mean| / standard deviation.
        bias: mean − reference, NaN without one; ``p_value`` is that of a test of no bias, see `describe`, and
            ``inconclusive`` is true where the replicates cannot tell: the deciding values are too rare to be among
            them, or the tail may be so heavy that there is no variance. ``smallest_bias_found`` is the smallest bias
            that would have had a p-value below 1e-4 with probability 0.999.
        khat: Pareto k̂ of the estimates' norms: above ½ the variance is infinite; ``tail`` says so
            in words, or 'inconclusive'.
        reference: the gradient that the bias is against, and ``reference_kind`` where it is from.
        evaluations: program executions for one estimate.
        seconds: wall time for one estimate, as run here in chunks; ``seconds_per_step`` for one alone, as in
            training.
        work_variance: variance × seconds.
    """

    draws: dict[str, Tensor]
    mean: dict[str, Tensor]
    mcse: dict[str, Tensor]
    variance: dict[str, Tensor]
    variance_mcse: dict[str, Tensor]
    snr: dict[str, Tensor]
    bias: dict[str, Tensor]
    p_value: dict[str, Tensor]
    inconclusive: dict[str, Tensor]
    smallest_bias_found: dict[str, Tensor]
    khat: dict[str, float]
    tail: dict[str, str]
    reference: dict[str, Tensor] | None
    reference_kind: str
    evaluations: int
    seconds: float
    seconds_per_step: float

    @property
    def work_variance(self) -> dict[str, Tensor]:
        """Variance × seconds: what a fixed time buys does not depend on the number of particles."""
        return {name: variance * self.seconds for name, variance in self.variance.items()}


def measure(
    objective: Objective,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
    reference: Gradients | None = None,
    chunk_size: int | None = None,
) -> Measurement:
    """Estimate a gradient many times and report its bias, variance and cost.

    Nothing is trained: baselines keep the memory that they have, and the param store and the global
    generators are left as they were found.

    Args:
        objective, model, guide, args, kwargs: as for `gradient`.
        replicates: how many estimates, two or more.
        seed: of the replicates.
        reference: the true gradient, if known; None computes it where `exact_gradient` can.
        chunk_size: replicates at once under vmap; None chooses so that graphs and gradients take 128 MiB. It enters
            the random stream: other chunks, other draws.

    Returns:
        The replicates, and what they say of the estimator.

    Raises:
        InvalidInput: ``objective`` is none, ``replicates`` < 2, ``chunk_size`` < 1, or a reference that does not fit.
    """
    check_counts(replicates, chunk_size)
    with pure(seed, program_of(model, guide, args, kwargs)):
        prepared = ready(objective, model, guide, args, kwargs)
        exact, kind = known_reference(prepared, objective, model, guide, args, kwargs, reference)
        known = None if exact is None else outcomes(objective, model, guide, args, kwargs, seed)
        step = seconds_per_step({"": objective}, lambda o: o.prepare(model, guide, args, kwargs))[""]
        found = replicate(objective, prepared, replicates, seed, chunk_size)
    return _report(found, exact, kind, unseen_by(prepared, known, replicates), step)


_BYTES_OF_A_NUMBER = 64
"""What a graph keeps for each number of a program's sites, where it cannot be weighed: several tensors of a step."""


def check_counts(replicates: int, chunk_size: int | None) -> None:
    """Raise if a number of replicates or a chunk size makes no sense."""
    if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 2:
        raise InvalidInput(f"replicates={replicates!r}: a variance needs replicates of 2 or more.")
    if chunk_size is not None:
        at_least("measure", "chunk_size", chunk_size, 1)


def ready(objective: Objective, model: Any, guide: Any, args: Any, kwargs: Any) -> Prepared:
    """Prepare a program and make sure that every gradient has a name."""
    check_objective(objective)
    prepared = objective.prepare(model, guide, args, kwargs)
    executor, vectorizes = prepared.executor, prepared.executor.vectorize
    try:
        with weighed(executor.program) as graph_bytes:
            surrogate = objective.estimate(executor).surrogate
            prepared = replace(prepared, graph_bytes=max(1, graph_bytes()))
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
        executor.vectorize = vectorizes  # a program with torch.func inside cannot be weighed
        surrogate = objective.estimate(executor).surrogate
        prepared = replace(prepared, graph_bytes=_BYTES_OF_A_NUMBER * program_elements(prepared))
    check_gradients_named(objective, prepared, surrogate)
    return prepared


def known_reference(
    prepared: Prepared,
    objective: Objective,
    model: Any,
    guide: Any,
    args: Any,
    kwargs: Any,
    reference: Gradients | None,
) -> tuple[dict[str, Tensor] | None, str]:
    """The reference as given, or exact, or none."""
    if reference is not None:
        return _checked(reference, prepared), "given"
    try:
        return exact_gradient(objective, model, guide, args, kwargs), "exact"
    except CannotBeExact:
        return None, "none"


def _checked(reference: Gradients, prepared: Prepared) -> dict[str, Tensor]:
    for name, parameter in prepared.parameters.items():
        if name not in reference:
            raise InvalidInput(f"The reference lacks parameter '{name}'; it has {', '.join(reference) or 'none'}.")
        if torch.as_tensor(reference[name]).shape != parameter.shape:
            shape = tuple(torch.as_tensor(reference[name]).shape)
            raise InvalidInput(
                f"The reference of '{name}' has shape {shape}, and the parameter {tuple(parameter.shape)}."
            )
    return {name: torch.as_tensor(reference[name]).detach() for name in prepared.parameters}


def _report(
    found: Replicates,
    reference: dict[str, Tensor] | None,
    kind: str,
    unseen: dict[str, np.ndarray] | None,
    seconds_per_step: float,
) -> Measurement:
    described = {}
    tails = {}
    magnitude = float(found.losses.double().abs().mean())
    for name, draws in found.draws.items():
        array = draws.numpy(force=True)
        against = None if reference is None else reference[name].numpy(force=True)
        described[name] = describe(array, against, unseen=None if unseen is None else unseen[name], magnitude=magnitude)
        norms = np.linalg.norm(array.reshape(len(array), -1).astype(float), axis=1)
        tails[name] = pareto_khat(norms)

    def column(field: str) -> dict[str, Tensor]:
        return {name: torch.as_tensor(np.asarray(getattr(d, field))) for name, d in described.items()}

    return Measurement(
        draws=found.draws,
        mean=column("mean"),
        mcse=column("mcse"),
        variance=column("variance"),
        variance_mcse=column("variance_mcse"),
        snr=column("snr"),
        bias=column("bias"),
        p_value=column("p_value"),
        inconclusive=column("inconclusive"),
        smallest_bias_found={
            name: torch.as_tensor(smallest_bias_found(d.bias_mcse, len(found.losses))) for name, d in described.items()
        },
        khat={name: tail.khat for name, tail in tails.items()},
        tail={name: tail.verdict for name, tail in tails.items()},
        reference=reference,
        reference_kind=kind,
        evaluations=found.evaluations,
        seconds=found.seconds,
        seconds_per_step=seconds_per_step,
    )
