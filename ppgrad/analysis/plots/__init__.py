"""Pictures of comparisons and of training runs.

In: a `ComparisonData`, or the metrics of a run. Out: a matplotlib ``Figure``. Figures are made without pyplot, so no
backend is needed, and matplotlib is imported only when a picture is drawn.
"""

from ppgrad.analysis.plots.bias import plot_bias
from ppgrad.analysis.plots.distributions import plot_distributions
from ppgrad.analysis.plots.training import plot_training
from ppgrad.analysis.plots.variance_cost import plot_variance_cost

__all__ = ["plot_bias", "plot_distributions", "plot_training", "plot_variance_cost"]
