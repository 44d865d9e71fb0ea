"""`Comparison`: several estimators of one gradient, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppgrad.analysis.statistics import Array, Statistics, describe, squared_distances

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class EstimatorDraws:
    """Replicates of one gradient estimate, and what one costs.

    Args:
        draws: ``{parameter: (replicates, *shape)}``, in the direction of ascent.
        evaluations: program executions for one gradient.
        seconds: wall time for one gradient among the replicates, which run many at once.
        seconds_per_step: wall time for one gradient alone, as a training step pays for it; None for ``seconds``.
        unseen: the standard error due to values that are too rare to be drawn, ``{parameter: shape}``; see `describe`.
        magnitude: mean size of the loss that a gradient is computed from; see `describe`.
        biased: whether the estimator says of itself that it is biased; ``order`` says how much.
        description: the objective, as it was written.
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
class Comparison:
    """Bias, variance and cost of several estimators of one gradient, under common seeds.

    Args:
        estimators: by label; all have the same parameters and as many replicates.
        reference: the gradient that bias is against, by parameter, or None.
        reference_mcse: its standard error, or None for an exact one.
        reference_kind: where it is from: 'exact', 'given', 'long run of …', 'none'.
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
        """Names of the parameters."""
        return list(next(iter(self.estimators.values())).draws)

    @property
    def replicates(self) -> int:
        """How many estimates of the gradient each estimator has."""
        return len(next(iter(next(iter(self.estimators.values())).draws.values())))

    @cached_property
    def components(self) -> list[str]:
        """A label for each number in the gradient, such as ``net.weight[0, 1]``."""
        draws = next(iter(self.estimators.values())).draws
        return [
            f"{name}[{', '.join(map(str, index))}]" if index else name
            for name in self.parameters
            for index in np.ndindex(np.shape(draws[name])[1:])
        ]

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """By label: `Statistics` of shape (components,)."""
        return {label: self._statistics(label) for label in self.estimators}

    def flat(self, label: str) -> np.ndarray:
        """An estimator's draws, all parameters side by side: shape (replicates, components)."""
        draws = self.estimators[label].draws
        return np.concatenate([np.reshape(draws[name], (self.replicates, -1)) for name in self.parameters], axis=1)

    def flat_reference(self) -> tuple[Array, Array] | None:
        """The reference and its standard error, shape (components,) each; None without a reference."""
        if self.reference is None:
            return None
        value = np.concatenate([np.ravel(self.reference[name]) for name in self.parameters])
        if self.reference_mcse is None:
            return value, np.zeros(value.shape)
        return value, np.concatenate([np.ravel(self.reference_mcse[name]) for name in self.parameters])

    def norms(self, label: str) -> Array:
        """Euclidean norm of each of an estimator's gradients, shape (replicates,)."""
        arrays = self.estimators[label].draws.values()
        squares = [np.square(np.asarray(array, dtype=float)).reshape(self.replicates, -1).sum(1) for array in arrays]
        return np.sqrt(np.sum(squares, axis=0))

    def squared_distances(self, label: str) -> Array:
        """Squared distance of each of an estimator's gradients to their mean, shape (replicates,)."""
        return np.sum([squared_distances(array) for array in self.estimators[label].draws.values()], axis=0)

    def summary(self, limit: int | None = 1000) -> DataFrame:
        """A row for each estimator and each component of the gradient.

        The index is (estimator, parameter). Bias is with its 95% band and the p-value of the test in
        `describe`; ``verdict`` is 'found', 'none found', 'inconclusive' where the replicates cannot tell, or 'unknown'
        without a reference; ``smallest_bias_found`` is the smallest bias that would have been found with probability
        0.999. ``mcse`` is the mean's standard error; ``tail`` says what Pareto k̂ of the component's size means for its
        variance. ``evaluations`` are for one gradient, ``seconds`` for one among replicates that run many at once;
        ``work_variance`` is variance × the seconds of a training step, see `totals`.

        Args:
            limit: at most so many components, those of the largest variance; ``attrs["left_out"]``
                counts the others. None for all.
        """
        from ppgrad.analysis.tables import summary

        return summary(self, limit)

    def totals(self) -> DataFrame:
        """A row for each estimator, over all components.

        ``variance`` is the trace of the covariance; ``ratio`` is against the smallest above 0 among the
        estimators that are not biased and not found to be (``attrs["least"]``), with a 95% confidence
        interval; ``snr`` is
        the mean's norm / √variance; ``p_value`` the smallest over components, after Bonferroni;
        ``khat`` and ``tail`` are of the gradients' norms. ``verdict`` is 'found' where the p-value is below 1e-4,
        'inconclusive' where there is a component of which the replicates cannot tell, 'none found' elsewhere, and
        'unknown' without a reference; ``smallest_bias_found`` is the largest over components.
        ``seconds_per_step`` is the wall time for one gradient alone, as in training, the median of several runs;
        ``seconds_per_replicate``, which is ``seconds``, that for one among replicates, which run many at once;
        ``work_variance`` is variance × seconds_per_step.
        """
        from ppgrad.analysis.tables import totals

        return totals(self)

    def pairs(self) -> DataFrame:
        """A row for every two estimators, compared under their common seeds.

        ``ratio`` is of total variances, first / second, with its 95% confidence interval; ``z`` is the
        largest paired mean difference in standard errors, and ``p_value`` the smallest over
        components, after Bonferroni.
        """
        from ppgrad.analysis.tables import pairs

        return pairs(self)

    def sentences(self) -> list[str]:
        """The result in words, one sentence an item."""
        from ppgrad.analysis.tables import sentences

        return sentences(self)

    def to_arviz(self) -> Any:
        """An ``InferenceData`` (ArviZ 0.23) or ``DataTree`` (1.x); groups: see `comparison_container`."""
        from ppgrad.analysis.arviz import comparison_container

        return comparison_container(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``comparison.nc``, three tables and three pictures into a folder, all or none.

        Returns:
            The paths of the files.

        Raises:
            OSError: the folder cannot be written; the message names it.
        """
        from ppgrad.analysis.saving import save

        return save(self, Path(folder))

    def plot_bias(self, ax: Axes | None = None) -> Figure:
        """Bias of each component with its 95% band, against the reference line."""
        from ppgrad.analysis.plots import plot_bias

        return plot_bias(self, ax)

    def plot_distributions(self, components: list[str] | None = None) -> Figure:
        """Density of single estimates, a panel for each of a few components, a row for each estimator."""
        from ppgrad.analysis.plots import plot_distributions

        return plot_distributions(self, components)

    def plot_variance_cost(self, ax: Axes | None = None, cost: str = "seconds") -> Figure:
        """Total variance against cost (``"seconds"`` or ``"evaluations"``) of one gradient."""
        from ppgrad.analysis.plots import plot_variance_cost

        return plot_variance_cost(self, ax, cost)

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
