"""How heavy the tail of a sample is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ROUNDING = 32
"""Units in the last place that two ways to compute one number may differ by."""

_FEWEST_DRAWS = 25
_FEWEST_EXCESSES = 5
_TIES = 5


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
    if np.sum(values >= values[-1] - ROUNDING * epsilon(norms) * abs(values[-1])) >= _TIES:
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


def epsilon(values: ArrayLike) -> float:
    """The relative spacing of the floating-point numbers of an array; of double precision for others."""
    dtype = np.asarray(values).dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else float(np.finfo(float).eps)
