"""The metrics of a training run, against its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppgrad.analysis.plots.figures import PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

_BAND = 0.05
"""The share of all steps that a point of a smoothed curve looks back on."""


def plot_training(metrics: DataFrame, title: str) -> Figure:
    """Loss or return, the gradient's norm and its signal-to-noise ratio, against the steps.

    Each is drawn as it was, and as the mean of the latest twentieth of all steps. A metric that the run
    does not have is left out; the return takes the place of the loss where there is one.

    Args:
        metrics: a row for each step, a column for each metric, as in `History`.
        title: what the picture is titled with.
    """
    first = "rollout/ep_rew_mean" if "rollout/ep_rew_mean" in metrics else "train/loss"
    shown = [name for name in (first, "grad/norm", "grad/snr") if name in metrics]
    figure = new_figure((7.6, 2.2 * len(shown) + 0.6))
    axes = np.atleast_1d(figure.subplots(len(shown), sharex=True))
    window = max(1, int(_BAND * len(metrics)))
    for ax, name, colour in zip(axes, shown, PALETTE, strict=False):
        column = metrics[name]
        ax.plot(column.index, column, color=colour, linewidth=0.6, alpha=0.35)
        ax.plot(column.index, column.rolling(window, min_periods=1).mean(), color=colour, linewidth=1.6)
        ax.set_ylabel(name)
    if first != "train/loss" and "eval/mean_reward" in metrics:
        known = metrics["eval/mean_reward"].dropna()
        axes[0].plot(known.index, known, "o", color="black", markersize=4, label="eval/mean_reward")
        axes[0].legend(frameon=False)
    axes[-1].set_xlabel("step")
    axes[0].set_title(title, fontsize=9, wrap=True)
    return figure
