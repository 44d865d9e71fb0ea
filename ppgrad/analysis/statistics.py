"""Numbers that arrays of replicate gradients give: bias, variance, tails, pairs. No names, no labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppgrad.analysis.bias_test import band, mean_test
from ppgrad.analysis.tail import ROUNDING, epsilon

Array = NDArray[np.float64]

Z95 = 1.959963984540054
"""Half the width of a 95% band, in standard errors."""

_DECIDES = 0.25
"""From this share of the draws' own standard error on, that of unseen values leaves the draws' verdict open."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What replicates of one gradient estimate say of it; every field has the gradient's shape.

    Args:
        mean: the replicates' mean; ``mcse`` is its standard error.
        variance: of a single estimate, with n − 1; ``variance_mcse`` is its standard error.
        bias: mean − reference; ``bias_low`` and ``bias_high`` are its 95% band, which holds the
            reference's own uncertainty and that of values too rare to be drawn. NaN without a reference.
        bias_mcse: the standard error that this band and the test have. NaN without a reference.
        p_value: of the test in `mean_test` that the mean is the reference. NaN without a reference.
        inconclusive: whether the replicates cannot tell: the deciding values are too rare to be among them, or the
            tail may be so heavy that there is no variance.
        snr: |mean| / standard deviation; infinite where only the deviation is 0, NaN where both are.
    """

    mean: Array
    mcse: Array
    variance: Array
    variance_mcse: Array
    bias: Array
    bias_low: Array
    bias_high: Array
    bias_mcse: Array
    p_value: Array
    inconclusive: NDArray[np.bool_]
    snr: Array


@dataclass(frozen=True, eq=False)
class Pair:
    """Two estimators under common seeds; every field has the gradient's shape.

    Args:
        difference: mean of first − second; ``mcse`` is its standard error.
        p_value: of a paired test that the difference is 0.
        ratio: variance of the first / variance of the second, between ``ratio_low`` and
            ``ratio_high`` with 95% confidence; the ends are NaN where a variance is 0.
    """

    difference: Array
    mcse: Array
    p_value: Array
    ratio: Array
    ratio_low: Array
    ratio_high: Array


def describe(
    draws: ArrayLike,
    reference: ArrayLike | None = None,
    reference_mcse: ArrayLike | None = None,
    *,
    unseen: ArrayLike | None = None,
    magnitude: float = 0.0,
) -> Statistics:
    """Mean, variance, bias and their uncertainties, for each component on its own.

    With n replicates, sample variance s² and fourth central moment m₄, the standard error of s² is
    √((m₄ − s⁴ (n − 3)/(n − 1)) / n). The bias is tested by `mean_test` with the standard error
    √(s²/n + reference_mcse² + unseen²), after ε, which rounding alone may do, is taken off: 32 units in the last place
    of the draws' mean size or of the reference, or 2 of ``magnitude``, whichever is largest.
    An estimate without variance has p-value 1 within ε and 0 outside, unless there are unseen values.

    Args:
        draws: replicates of a gradient, shape (replicates, *shape).
        reference: the gradient that bias is against, shape (*shape).
        reference_mcse: its standard error, shape (*shape); None for an exact one.
        unseen: the standard error due to values so rare that few or none of them are among the draws, which the
            draws' own variance therefore may lack, shape (*shape); None for none.
        magnitude: the size of the numbers that a draw is computed from, such as the loss: a gradient that is 0 by
            cancellation is rounded as they are.

    Raises:
        ValueError: fewer than two replicates, or a reference of another shape.

    Source: Cramér (1946), eq. 27.4.2, for the variance of a sample variance.
    """
    values = _replicates(draws)
    count = len(values)
    mean, deviations = _centred(values)
    square = np.square(deviations)
    variance = square.sum(0) / (count - 1)
    mcse = np.sqrt(variance / count)
    bias = error = p_value = below = above = np.full(mean.shape, np.nan)
    inconclusive = np.zeros(mean.shape, dtype=bool)
    if reference is not None:
        target = _shaped(reference, mean.shape, "reference")
        hidden = np.zeros(mean.shape) if unseen is None else _shaped(unseen, mean.shape, "unseen")
        own = np.zeros(mean.shape) if reference_mcse is None else _shaped(reference_mcse, mean.shape, "reference_mcse")
        error = np.sqrt(mcse**2 + own**2 + hidden**2)
        bias = mean - target
        rounding = ROUNDING * max(epsilon(draws), epsilon(reference))
        scale = np.maximum(np.abs(values).mean(0), np.abs(target))
        size = _beyond_rounding(bias, error, rounding, np.maximum(scale, magnitude / 16))
        below, above = band(deviations, error, Z95)
        p_value, untold = mean_test(deviations, size, error)
        inconclusive = untold | ((hidden > _DECIDES * mcse) & (np.abs(bias) > rounding * scale))
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.abs(mean) / np.sqrt(variance)
    return Statistics(
        mean=mean,
        mcse=mcse,
        variance=variance,
        variance_mcse=_variance_mcse(np.square(square).mean(0), variance, count),
        bias=bias,
        bias_low=bias - below,
        bias_high=bias + above,
        bias_mcse=error,
        p_value=p_value,
        inconclusive=inconclusive,
        snr=snr,
    )


def total_variance(squares: ArrayLike) -> tuple[float, float]:
    """The trace of a covariance and its standard error.

    Args:
        squares: squared distance of each replicate to the mean, shape (replicates,).

    Returns:
        Σ squares / (n − 1), and a standard error that for one component is that of `describe`; for
        more it takes tr(Σ²) ≤ (tr Σ)² in a term of order 1/n².
    """
    values = np.asarray(squares, dtype=float)
    variance = values.sum() / (len(values) - 1)
    return float(variance), float(_variance_mcse(np.square(values).mean(), variance, len(values)))


def squared_distances(draws: ArrayLike) -> Array:
    """‖draw − mean‖² of each replicate, shape (replicates,)."""
    _, deviations = _centred(_replicates(draws))
    return np.square(deviations).reshape(len(deviations), -1).sum(1)


def paired(first: ArrayLike, second: ArrayLike) -> Pair:
    """Compare two estimators whose replicates share their seeds, one by one.

    The difference of means is tested by `mean_test`. The confidence interval of the variance
    ratio is that of its logarithm by the delta method: with squared deviations d² over their
    variances s², the log ratio has standard error √(Var(d₁²/s₁² − d₂²/s₂²) / n), which holds the
    correlation that common seeds bring.

    Args:
        first, second: replicates, shape (replicates, *shape) each.

    Raises:
        ValueError: fewer than two replicates, or shapes that differ.
    """
    one, two = _replicates(first), _replicates(second)
    if one.shape != two.shape:
        raise ValueError(f"Pairs need draws of one shape, not {one.shape} and {two.shape}.")
    count = len(one)
    difference, deviations = _centred(one - two)
    mcse = np.sqrt(np.square(deviations).sum(0) / (count - 1) / count)
    rounding = ROUNDING * max(epsilon(first), epsilon(second))
    scale = np.maximum(np.abs(one).mean(0), np.abs(two).mean(0))
    ratio, low, high = variance_ratio(np.square(_centred(one)[1]), np.square(_centred(two)[1]))
    p_value, _ = mean_test(deviations, _beyond_rounding(difference, mcse, rounding, scale), mcse)
    return Pair(difference, mcse, p_value, ratio, low, high)


def variance_ratio(first: ArrayLike, second: ArrayLike) -> tuple[Array, Array, Array]:
    """Ratio of two variances from paired squared deviations, with its 95% confidence interval.

    Args:
        first, second: squared deviations, shape (replicates, *shape) each.

    Returns:
        Ratio, low end, high end, of shape (*shape) each. The ends are NaN where a variance is 0.
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    count = len(one)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = one.sum(0) / two.sum(0)
        influence = one / one.mean(0) - two / two.mean(0)
        factor = np.exp(Z95 * np.sqrt(np.square(influence).sum(0) / (count - 1) / count))
        return np.asarray(ratio), np.asarray(ratio / factor), np.asarray(ratio * factor)


def _beyond_rounding(difference: Array, error: Array, rounding: float, scale: Array) -> Array:
    """A difference less what rounding may do, at a scale of 1 or more if there is no error."""
    allowed = rounding * np.where(error > 0, scale, np.maximum(scale, 1))
    return np.asarray(np.sign(difference) * np.maximum(np.abs(difference) - allowed, 0))


def _variance_mcse(fourth: Array, variance: Array, count: int) -> Array:
    return np.sqrt(np.maximum(fourth - (count - 3) / (count - 1) * np.square(variance), 0) / count)


def _centred(values: Array) -> tuple[Array, Array]:
    """Mean and deviations; values that are all equal deviate by nothing, not by rounding."""
    constant = np.all(values == values[0], axis=0)
    mean = np.where(constant, values[0], values.mean(0))
    return mean, values - mean


def _replicates(draws: ArrayLike) -> Array:
    values = np.asarray(draws, dtype=float)
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(f"Draws of shape {values.shape}: a variance needs two replicates or more, first dimension.")
    return values


def _shaped(values: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    array = np.asarray(values, dtype=float)
    if array.shape != shape:
        raise ValueError(f"The {name} has shape {array.shape}, and each draw {shape}.")
    return array
