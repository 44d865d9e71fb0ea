"""`ComparisonData`: the draws of several estimators of one gradient, and the numbers that they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from ppgrad.analysis.statistics import Array, Statistics, describe, squared_distances


@dataclass(frozen=True, eq=False)
class EstimatorDraws:
    """Replicates of one gradient estimate, and what one costs.

    Args:
        draws: ``{parameter: (replicates, *shape)}``, in the direction of ascent, in units of
            objective / parameter.
        evaluations: program executions for one gradient.
        seconds: wall time for one gradient among the replicates, which run many at once.
        biased: whether the estimator says of itself that it is biased; ``order`` says how much.
        description: the objective, as it was written.
        seconds_per_step: wall time for one gradient alone, as a training step pays for it; None for ``seconds``.
        unseen: the standard error due to values that are too rare to be drawn, ``{parameter: shape}``; see `describe`.
        magnitude: mean size of the loss that a gradient is computed from; see `describe`.
    """

    draws: Mapping[str, np.ndarray]
    evaluations: int
    seconds: float
    biased: bool = False
    order: str = ""
    description: str = ""
    seconds_per_step: float | None = None
    unseen: Mapping[str, np.ndarray] | None = None
    magnitude: float = 0.0

    @property
    def step(self) -> float:
        """Wall time for one gradient in training: ``seconds_per_step``, or ``seconds`` where no step was timed."""
        return self.seconds if self.seconds_per_step is None else self.seconds_per_step


@dataclass(frozen=True, eq=False)
class ComparisonData:
    """Replicate gradients of several estimators under common seeds, their reference, and the numbers they give.

    A component is one number of the gradient. Components stand side by side in the order of the parameters, each
    parameter's in row-major order. Gradients are in units of objective / parameter, in the direction of ascent.

    Args:
        estimators: the replicates of each estimator by its label; all have the same parameters and as many replicates.
        reference: the gradient that bias is against, ``{parameter: shape}``, or None.
        reference_mcse: the standard error of the reference, ``{parameter: shape}``, or None for an exact one.
        reference_kind: where the reference is from: 'exact', 'given', 'long run of …', 'none'.
        seed: what the replicates were drawn under.
        name: what tables and pictures are titled with.
        chains: blocks that the replicates, which are independent, are cut into; the first ones may have one more.

    Raises:
        ValueError: estimators or references that do not fit together.
    """

    estimators: Mapping[str, EstimatorDraws]
    reference: Mapping[str, np.ndarray] | None
    reference_mcse: Mapping[str, np.ndarray] | None
    reference_kind: str
    seed: int
    name: str = ""
    chains: int = 2

    def __post_init__(self) -> None:
        if not self.estimators:
            raise ValueError("A comparison needs at least one estimator.")
        first, expected = next((label, _shapes(one)) for label, one in self.estimators.items())
        if not any(all(shape) for shape in expected.values()):
            raise ValueError(f"The draws of '{first}' have no parameters. Give at least one.")
        for label, one in self.estimators.items():
            if _shapes(one) != expected:
                raise ValueError(f"The draws of '{label}' have shapes {_shapes(one)}, those of '{first}' {expected}.")
        if len({shape[0] for shape in expected.values()}) != 1 or not 1 <= self.chains <= self.replicates:
            raise ValueError(f"Draws of shapes {expected} cannot be split into {self.chains} chains of replicates.")
        for given, what in ((self.reference, "reference"), (self.reference_mcse, "reference_mcse")):
            for parameter, shape in expected.items() if given is not None else ():
                if given is None or parameter not in given or np.shape(given[parameter]) != shape[1:]:
                    raise ValueError(f"The {what} of '{parameter}' is missing, or not of shape {shape[1:]}.")

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters."""
        return list(next(iter(self.estimators.values())).draws)

    @property
    def replicates(self) -> int:
        """How many estimates of the gradient each estimator has."""
        return len(next(iter(next(iter(self.estimators.values())).draws.values())))

    @cached_property
    def components(self) -> list[str]:
        """A label for each component of the gradient, such as ``net.weight[0, 1]``."""
        draws = next(iter(self.estimators.values())).draws
        return [
            f"{name}[{', '.join(map(str, index))}]" if index else name
            for name in self.parameters
            for index in np.ndindex(np.shape(draws[name])[1:])
        ]

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """For each label its `Statistics`, every field of shape (components,).

        Raises:
            ValueError: there is only one replicate, which has no variance.
        """
        return {label: self._statistics(label) for label in self.estimators}

    def flat(self, label: str) -> np.ndarray:
        """The draws of an estimator, all parameters side by side: shape (replicates, components)."""
        draws = self.estimators[label].draws
        return np.concatenate([np.reshape(draws[name], (self.replicates, -1)) for name in self.parameters], axis=1)

    def flat_reference(self) -> tuple[Array, Array] | None:
        """The reference and its standard error, each of shape (components,); None without a reference."""
        if self.reference is None:
            return None
        value = np.concatenate([np.ravel(self.reference[name]) for name in self.parameters])
        if self.reference_mcse is None:
            return value, np.zeros(value.shape)
        return value, np.concatenate([np.ravel(self.reference_mcse[name]) for name in self.parameters])

    def norms(self, label: str) -> Array:
        """The Euclidean norm of each of an estimator's gradients, shape (replicates,)."""
        arrays = self.estimators[label].draws.values()
        squares = [np.square(np.asarray(array, dtype=float)).reshape(self.replicates, -1).sum(1) for array in arrays]
        return np.sqrt(np.sum(squares, axis=0))

    def squared_distances(self, label: str) -> Array:
        """The squared distance of each of an estimator's gradients to their mean, shape (replicates,)."""
        return np.sum([squared_distances(array) for array in self.estimators[label].draws.values()], axis=0)

    def _statistics(self, label: str) -> Statistics:
        found, one = [], self.estimators[label]
        for name, draws in one.draws.items():
            reference = None if self.reference is None else self.reference[name]
            mcse = None if self.reference is None or self.reference_mcse is None else self.reference_mcse[name]
            unseen = None if one.unseen is None else one.unseen[name]
            found.append(describe(draws, reference, mcse, unseen=unseen, magnitude=one.magnitude))
        columns = {f.name: np.concatenate([np.ravel(getattr(s, f.name)) for s in found]) for f in fields(Statistics)}
        return Statistics(**columns)


def _shapes(one: EstimatorDraws) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(array) for name, array in one.draws.items()}
