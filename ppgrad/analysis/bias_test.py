"""Whether a mean is what it should be: tests that stay within their level for skewed, rare and nearly equal numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppgrad.analysis.tail import pareto_khat

Array = NDArray[np.float64]

DOUBT = 1e-4
"""A p-value below it counts as a bias that was found."""

POWER = 0.999
"""With what probability a bias is to be found that a report says would have been found."""

_LOOKED_AT = 0.05
"""A p-value above it is believed without a look at the tail."""

_FEWEST = 250
"""So many draws are needed to say anything of a tail."""

_MANY = 200

_NORMAL_SKEWNESS = 4
"""So many standard errors of a normal sample's skewness are taken for noise."""


def mean_test(deviations: Array, size: Array, error: Array) -> tuple[Array, Array]:
    """Two-sided p-values of the hypothesis that a mean is as given, and where the sample cannot tell.

    The larger of two p-values on n − 1 degrees of freedom: Student's, of t = size / error, and Hall's, of
    (1/a) [(1 + a t / 3)³ − 1] + a / 6 with a = skewness / √n, which undoes the skewness of the sample. Up to
    4 √(6/n) of a skewness is that of a normal sample and is left alone, so that for symmetric draws this is the t test.
    Hall's statistic is taken as constant below t = −3/a, where it would turn: 1/a² values or fewer decide there.
    A p-value below 0.05 is replaced by 1 where the tail towards the reference may be so heavy that there is no
    variance (Pareto k̂ plus its standard error above ½, from 250 draws on): the largest values may then just not have
    been drawn.

    Args:
        deviations: of the draws from their mean, shape (n, *shape).
        size: mean − reference, less what rounding may do, shape (*shape).
        error: its standard error, shape (*shape).

    Returns:
        p-values, and whether the tail forbids to tell, of shape (*shape) each.

    Source: Hall (1992), On the removal of skewness by transformation, section 2.
    """
    from scipy.special import stdtr

    count = len(deviations)
    skew, own = _skew(deviations, error)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(error > 0, size / error, np.where(size != 0, np.inf, 0))
    corrected = _hall(statistic, skew)
    p_value = np.asarray(2 * stdtr(count - 1, -np.minimum(np.abs(statistic), np.abs(corrected))))
    untold = np.zeros(p_value.shape, dtype=bool)
    looked_at = (p_value < _LOOKED_AT) & (own > 0.5) & (count >= _FEWEST)
    for place in map(tuple, np.argwhere(looked_at)):
        towards = np.maximum(-np.sign(size[place]) * deviations[(slice(None), *place)], 0)
        tail = pareto_khat(towards)
        untold[place] = tail.khat + tail.standard_error > 0.5
    return np.where(untold, 1.0, p_value), untold


def band(deviations: Array, error: Array, width: float) -> tuple[Array, Array]:
    """How far below and above a mean's difference its true value lies, by the two statistics of `mean_test`.

    Args:
        deviations, error: as for `mean_test`.
        width: of the band for a normal sample, in standard errors.

    Returns:
        Distances, of shape (*shape) each, at least ``width`` standard errors.
    """
    skew, _ = _skew(deviations, error)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = ((np.cbrt(1 + skew * (end - skew / 6)) - 1) * 3 / skew for end in (-width, width))
    above = np.fmax(width, np.where(skew == 0, 0, -low)) * error
    return np.fmax(width, np.where(skew == 0, 0, high)) * error, above


def smallest_bias_found(mcse: ArrayLike, replicates: int, level: float = DOUBT, power: float = POWER) -> Array:
    """The smallest bias that a t test at a level would have found with a given probability.

    δ with P(|T| > t_{1 − level/2}) = power, T being noncentral t with n − 1 degrees of freedom and
    noncentrality δ / mcse.

    Args:
        mcse: the mean's standard error, that of the reference included, any shape.
        replicates: n, two or more.
        level: the p-value below which a bias counts as found.
        power: the probability with which it is to be found.

    Raises:
        ValueError: a level or a power that is not between 0 and 1, or fewer than two replicates.

    Source: Johnson & Welch (1940), Applications of the non-central t-distribution.
    """
    from scipy.special import nctdtrinc, ndtri, stdtrit

    if not (0 < level < 1 and 0 < power < 1) or replicates < 2:
        raise ValueError(f"level={level}, power={power}, replicates={replicates}: write 0 to 1, 0 to 1, 2 or more.")
    threshold = stdtrit(replicates - 1, 1 - level / 2)
    if replicates <= _MANY:
        shift = nctdtrinc(replicates - 1, 1 - power, threshold)
    else:  # a noncentral t is near to normal, and SciPy's inverse fails
        shift = threshold + ndtri(power) * np.sqrt(1 + threshold**2 / 2 / (replicates - 1))
    return np.asarray(np.asarray(mcse, dtype=float) * shift)


def _skew(deviations: Array, error: Array) -> tuple[Array, Array]:
    """a = skewness / √n, beyond that of a normal sample, and the share of the squared error that the draws explain.

    The rest of the error is taken as symmetric.
    """
    count = len(deviations)
    square = np.square(deviations)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.nan_to_num(square.sum(0) / (count - 1) / count / np.square(error))
        skewness = np.nan_to_num((square * deviations).mean(0) / square.mean(0) ** 1.5)
    excess = np.maximum(np.abs(skewness) - _NORMAL_SKEWNESS * np.sqrt(6 / count), 0)
    return np.sign(skewness) * excess * np.minimum(own, 1) ** 1.5 / np.sqrt(count), own


def _hall(statistic: Array, skew: Array) -> Array:
    """Hall's transformation of a t statistic; ``skew`` is the sample's skewness / √n."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bent = (np.maximum(1 + skew * statistic / 3, 0) ** 3 - 1) / skew + skew / 6
    return np.asarray(np.where(skew == 0, statistic, bent))
