"""Numbers that arrays of replicate gradients give: bias, variance, tails, pairs. No names, no labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

Z95 = 1.959963984540054
"""Half the width of a 95% band, in standard errors."""

_ROUNDING = 32
"""Units in the last place that two ways to compute one number may differ by."""

_FEWEST_DRAWS = 25
_FEWEST_EXCESSES = 5
_TIES = 5


@dataclass(frozen=True, eq=False)
class Statistics:
    """What replicates of one gradient estimate say of it; every field has the gradient's shape.

    Args:
        mean: the replicates' mean; ``mcse`` is its standard error.
        variance: of a single estimate, with n − 1; ``variance_mcse`` is its standard error.
        bias: mean − reference; ``bias_low`` and ``bias_high`` are its 95% band, which holds the
            reference's own uncertainty too. NaN without a reference.
        p_value: of a t test that the mean is the reference. NaN without a reference.
        snr: |mean| / standard deviation; infinite where only the deviation is 0, NaN where both are.
    """

    mean: Array
    mcse: Array
    variance: Array
    variance_mcse: Array
    bias: Array
    bias_low: Array
    bias_high: Array
    p_value: Array
    snr: Array


@dataclass(frozen=True)
class Tail:
    """The tail of a sample of norms.

    Args:
        khat: shape of the generalized Pareto distribution that fits the largest values: moments of
            order below 1/k̂ exist. −∞ where the largest value repeats, NaN where nothing can be said.
        standard_error: asymptotic standard error of ``khat``.
        verdict: 'finite variance', 'infinite variance', 'no mean', or 'inconclusive'.
    """

    khat: float
    standard_error: float
    verdict: str


@dataclass(frozen=True, eq=False)
class Pair:
    """Two estimators under common seeds; every field has the gradient's shape.

    Args:
        difference: mean of first − second; ``mcse`` is its standard error.
        p_value: of a paired t test that the difference is 0.
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
    draws: ArrayLike, reference: ArrayLike | None = None, reference_mcse: ArrayLike | None = None
) -> Statistics:
    """Mean, variance, bias and their uncertainties, for each component on its own.

    With n replicates, sample variance s² and fourth central moment m₄, the standard error of s² is
    √((m₄ − s⁴ (n − 3)/(n − 1)) / n). The bias is tested with t = (|bias| − ε) / √(s²/n + reference_mcse²)
    on n − 1 degrees of freedom, where ε is what rounding alone may do: 32 units in the last place.
    An estimate without variance has p-value 1 within ε and 0 outside.

    Args:
        draws: replicates of a gradient, shape (replicates, *shape).
        reference: the gradient that bias is against, shape (*shape).
        reference_mcse: its standard error, shape (*shape); None for an exact one.

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
    missing = np.full(mean.shape, np.nan)
    bias, error, p_value = missing, missing, missing
    if reference is not None:
        target = _shaped(reference, mean.shape, "reference")
        error = mcse
        if reference_mcse is not None:
            error = np.hypot(mcse, _shaped(reference_mcse, mean.shape, "reference_mcse"))
        bias = mean - target
        rounding = _ROUNDING * max(_epsilon(draws), _epsilon(reference))
        p_value = _t_test(bias, error, count, rounding, np.maximum(np.abs(values).mean(0), np.abs(target)))
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.abs(mean) / np.sqrt(variance)
    return Statistics(
        mean=mean,
        mcse=mcse,
        variance=variance,
        variance_mcse=_variance_mcse(np.square(square).mean(0), variance, count),
        bias=bias,
        bias_low=bias - Z95 * error,
        bias_high=bias + Z95 * error,
        p_value=p_value,
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

    The difference of means is tested by a paired t test. The confidence interval of the variance
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
    rounding = _ROUNDING * max(_epsilon(first), _epsilon(second))
    scale = np.maximum(np.abs(one).mean(0), np.abs(two).mean(0))
    ratio, low, high = variance_ratio(np.square(_centred(one)[1]), np.square(_centred(two)[1]))
    return Pair(difference, mcse, _t_test(difference, mcse, count, rounding, scale), ratio, low, high)


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


def pareto_khat(norms: ArrayLike) -> Tail:
    """How heavy a tail is: k̂ of a generalized Pareto fit to the largest values.

    The ⌈min(n/5, 3√n)⌉ largest of n values, less the largest value below them, are fitted as
    Vehtari et al. do, with their prior that is worth ten values at ½. Its standard error is (1 + k̂)/√m
    for m values (Smith, 1987). The variance is finite if k̂ < ½, the mean if k̂ < 1; the verdict wants
    two standard errors of room, and is 'inconclusive' otherwise.

    Where the largest value repeats five times or more, the sample is taken as bounded: k̂ = −∞ and
    'finite variance'. Fewer than 25 values, fewer than five above the threshold, or values that are
    not finite: k̂ is NaN and the verdict 'inconclusive'.

    Args:
        norms: a sample of values that are 0 or more, shape (n,).

    Source: Zhang & Stephens (2009); Vehtari, Simpson, Gelman, Yao & Gabry (2024), section 2.4 and appendix C.
    """
    values = np.sort(np.asarray(norms, dtype=float).ravel())
    count = len(values)
    if count < _FEWEST_DRAWS or not np.isfinite(values).all():
        return Tail(np.nan, np.nan, "inconclusive")
    if np.sum(values >= values[-1] - _ROUNDING * _epsilon(norms) * abs(values[-1])) >= _TIES:
        return Tail(-np.inf, 0.0, "finite variance")
    size = int(np.ceil(min(count / 5, 3 * np.sqrt(count))))
    threshold = values[-size - 1]
    excesses = values[values > threshold] - threshold
    if len(excesses) < _FEWEST_EXCESSES:
        return Tail(np.nan, np.nan, "inconclusive")
    khat = _generalized_pareto(excesses)
    if not np.isfinite(khat):
        return Tail(np.nan, np.nan, "inconclusive")
    error = (1 + max(khat, -0.5)) / np.sqrt(len(excesses))
    return Tail(khat, float(error), _verdict(khat, error))


def _verdict(khat: float, error: float) -> str:
    if khat + 2 * error < 0.5:
        return "finite variance"
    if khat - 2 * error >= 1:
        return "no mean"
    return "infinite variance" if khat - 2 * error > 0.5 else "inconclusive"


def _generalized_pareto(excesses: Array) -> float:
    """k̂ of sorted positive values: Zhang & Stephens' weighted mean over a grid of −k/σ, then the prior."""
    count = len(excesses)
    grid = 30 + int(np.sqrt(count))
    quartile = excesses[int(count / 4 + 0.5) - 1]
    theta = (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * quartile) + 1 / excesses[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = np.log1p(-theta[:, None] * excesses).mean(1)
        likelihood = count * (np.log(-theta / shape) - shape - 1)
        usable = np.isfinite(likelihood)
        if not usable.any():
            return np.nan
        weights = np.exp(likelihood[usable] - likelihood[usable].max())
        weights /= weights.sum()
        kept = weights >= 10 * np.finfo(float).eps
        centre = np.sum(theta[usable][kept] * weights[kept]) / weights[kept].sum()
        khat = np.log1p(-centre * excesses).mean()
    return float((count * khat + 10 * 0.5) / (count + 10))


def _t_test(difference: Array, error: Array, count: int, rounding: float, scale: Array) -> Array:
    """Two-sided p-values; what rounding may do is taken off first, at a scale of 1 or more if error is 0."""
    from scipy.special import stdtr

    size = np.maximum(np.abs(difference) - rounding * np.where(error > 0, scale, np.maximum(scale, 1)), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(error > 0, size / error, np.where(size > 0, np.inf, 0))
    return np.asarray(np.where(np.isnan(difference), np.nan, 2 * stdtr(count - 1, -statistic)))


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


def _epsilon(values: ArrayLike) -> float:
    dtype = np.asarray(values).dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else float(np.finfo(float).eps)
