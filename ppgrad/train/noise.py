"""How noisy the gradient is while it trains, from the estimates that training makes anyway."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

from ppgrad.analysis.tail import pareto_khat

DECAY = 0.98
"""Weight of the past: the averages look back on about 50 steps."""

WINDOW = 200
"""On how many steps the tail is fitted."""


class GradientNoise:
    """Variance and signal-to-noise ratio of one gradient estimate, from the successive estimates g_t of training.

        variance  V = ½ ⟨|g_t − g_{t−1}|²⟩,
        SNR       |μ| / √V,    |μ|² = max(0, |⟨g_t⟩|² − V Σ w²),

    with ⟨·⟩ an exponential average of weights w that sum to one. V is the total variance, that over
    all components (the trace of the covariance), as in ``Comparison.totals()``; critics apart. It needs
    no further run of the program.

    Where the parameters stand still, V and |μ|² (before it is cut off at zero) have no bias. While they
    move, V also counts how far the mean gradient moves in one step, and how that goes with the noise
    that moved it: an error of the order of learning rate × curvature. (It would be how far the mean
    moves in the whole window, were it not for the differences.) μ is a mean over the window, and both
    lag by about 50 steps. It is the variance of what the optimizer sees: everything that is drawn
    afresh at each step is in it, minibatches too. `ppgrad.measure` gives the variance at fixed
    parameters, with its uncertainty.

    Source: von Neumann et al. (1941), The mean square successive difference, eq. 1.
    """

    def __init__(self) -> None:
        self._count = 0
        self._latest = torch.zeros(0)
        self._mean = torch.zeros(0)
        self._difference = 0.0
        self._lengths: deque[float] = deque(maxlen=WINDOW)

    @property
    def khat(self) -> float | None:
        """Shape k̂ of the tail of |g_t − g_{t−1}| over the latest 200 steps; None before the 101st.

        A difference of two estimates has as heavy a tail as one of them. See `pareto_khat`.
        """
        if len(self._lengths) < WINDOW // 2:
            return None
        khat = pareto_khat(self._lengths).khat
        return khat if math.isfinite(khat) else None

    def update(self, gradient: Tensor) -> tuple[float, float]:
        """Take in the next estimate, a vector; return variance and SNR, NaN before the second one."""
        difference = None
        if gradient.shape != self._latest.shape:
            self.__init__()  # type: ignore[misc]
            self._mean = torch.zeros_like(gradient)
        else:
            difference = gradient - self._latest
        self._latest = gradient
        self._mean = DECAY * self._mean + (1 - DECAY) * gradient
        self._count += 1
        if difference is None:
            return math.nan, math.nan
        square, mean_square = torch.stack([difference.square().sum(), self._mean.square().sum()]).tolist()
        self._lengths.append(math.sqrt(square))
        self._difference = DECAY * self._difference + (1 - DECAY) * 0.5 * square
        return self._estimates(mean_square)

    def _estimates(self, mean_square: float) -> tuple[float, float]:
        count = self._count
        variance = self._difference / (1 - DECAY ** (count - 1))
        forgotten = DECAY**count
        sum_of_squares = (1 - DECAY) * (1 + forgotten) / ((1 + DECAY) * (1 - forgotten))
        signal = mean_square / (1 - forgotten) ** 2 - variance * sum_of_squares
        if variance == 0:
            return 0.0, math.inf if signal > 0 else math.nan
        return variance, math.sqrt(max(0.0, signal) / variance)

    def state(self) -> dict[str, Any]:
        """All that the next update depends on."""
        return {
            "count": self._count,
            "latest": self._latest,
            "mean": self._mean,
            "difference": self._difference,
            "lengths": list(self._lengths),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._count, self._difference = state["count"], state["difference"]
        self._latest, self._mean = state["latest"], state["mean"]
        self._lengths = deque(state["lengths"], maxlen=WINDOW)
