"""`Comparison`: several estimators of one gradient, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppgrad.analysis import plots, saving, tables
from ppgrad.analysis.arviz import comparison_container
from ppgrad.analysis.comparison_data import ComparisonData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Comparison(ComparisonData):
    """Bias, variance and cost of several estimators of one gradient, under common seeds.

    `compare` makes it; the methods here show it as tables, sentences, pictures and files.

    Args:
        estimators: by label; all have the same parameters, ``(replicates, *shape)`` each, and as many replicates.
        reference: the gradient that bias is against, of shape ``shape`` by parameter, or None.
        reference_mcse: its standard error, or None for an exact one.
        reference_kind: where it is from: 'exact', 'given', 'long run of …', 'none'.
        seed: what the replicates were drawn under.
        name: what tables and pictures are titled with.
        chains: blocks that the replicates are cut into; see `ComparisonData`.

    Raises:
        ValueError: estimators or references that do not fit together.
    """

    def summary(self, limit: int | None = 1000) -> DataFrame:
        """A row for each estimator and each component of the gradient.

        The index is (estimator, parameter). Bias is with its 95% band and the p-value of the test in
        `describe`; ``verdict`` is 'found', 'none found', 'inconclusive' where the replicates cannot tell, or 'unknown'
        without a reference; ``smallest_bias_found`` is the smallest bias that would have been found with probability
        0.999. ``mcse`` is the mean's standard error; ``tail`` says what Pareto k̂ of the component's size means for its
        variance. ``evaluations`` are for one gradient, ``seconds`` for one among replicates that run many at once;
        ``work_variance`` is variance × the seconds of a training step, see `totals`. Means, biases and standard errors
        are in units of objective / parameter, variances in units of their square.

        Args:
            limit: at most so many components, those of the largest variance; ``attrs["left_out"]``
                counts the others. None for all.

        Raises:
            ValueError: there is only one replicate, which has no variance.
        """
        return tables.summary(self, limit)

    def totals(self) -> DataFrame:
        """A row for each estimator, over all components.

        ``variance`` is the trace of the covariance; ``ratio`` is against the smallest above 0 among the
        estimators that are not biased and not found to be (``attrs["least"]``), with a 95% confidence
        interval; ``snr`` is the mean's norm / √variance; ``p_value`` is the smallest over components,
        after Bonferroni; ``khat`` and ``tail`` are of the gradients' norms. ``verdict`` is 'found' where the p-value is
        below 1e-4, 'inconclusive' where there is a component of which the replicates cannot tell, 'none found'
        elsewhere, and 'unknown' without a reference; ``smallest_bias_found`` is the largest over components.
        ``evaluations`` are for one gradient; ``seconds_per_step`` is the wall time for one gradient alone, as in
        training, the median of several runs; ``seconds_per_replicate``, which is ``seconds``, that for one among
        replicates, which run many at once; ``work_variance`` is variance × seconds_per_step. Variances are in units of
        (objective / parameter)².

        Raises:
            ValueError: there is only one replicate, which has no variance.
        """
        return tables.totals(self)

    def pairs(self) -> DataFrame:
        """A row for every two estimators, compared under their common seeds.

        ``ratio`` is of total variances, first / second, with its 95% confidence interval; ``z`` is the
        largest paired mean difference in standard errors, and ``p_value`` the smallest over
        components, after Bonferroni. None of them has a unit.

        Raises:
            ValueError: there is only one replicate, which has no variance.
        """
        return tables.pairs(self)

    def sentences(self) -> list[str]:
        """The result in words, one sentence an item.

        Raises:
            ValueError: there is only one replicate, which has no variance.
        """
        return tables.sentences(self)

    def to_arviz(self) -> Any:
        """An ``InferenceData`` (ArviZ 0.23) or ``DataTree`` (1.x); groups: see `comparison_container`."""
        return comparison_container(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``comparison.nc``, three tables and three pictures into a folder, all or none.

        Returns:
            The paths of the files.

        Raises:
            OSError: the folder cannot be written; the message names it.
            ValueError: there is only one replicate, which has no variance.
        """
        return saving.save_comparison(self, Path(folder))

    def plot_bias(self, ax: Axes | None = None) -> Figure:
        """Bias of each component with its 95% band, against the reference line; see `plots.plot_bias`.

        Args:
            ax: where to draw; None makes a figure.

        Raises:
            ValueError: there is only one replicate, which has no variance.
        """
        return plots.plot_bias(self, ax)

    def plot_distributions(self, components: list[str] | None = None) -> Figure:
        """Density of single estimates, a panel for each of a few components, a row for each estimator.

        Args:
            components: labels as in ``components``; None takes four whose gradients are largest
                against their noise.

        Raises:
            ValueError: a component that is not there, or no choice of components and only one replicate.
        """
        return plots.plot_distributions(self, components)

    def plot_variance_cost(self, ax: Axes | None = None, cost: str = "seconds") -> Figure:
        """Total variance against the cost of one gradient; see `plots.plot_variance_cost`.

        Args:
            ax: where to draw; None makes a figure.
            cost: ``"seconds"`` or ``"evaluations"``.

        Raises:
            ValueError: a cost of another name, or only one replicate, which has no variance.
        """
        return plots.plot_variance_cost(self, ax, cost)
