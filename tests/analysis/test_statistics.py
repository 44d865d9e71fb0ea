from __future__ import annotations

import importlib.metadata
import warnings

import numpy as np
import pytest
from scipy import stats

from ppgrad.analysis import describe, paired, pareto_khat
from ppgrad.analysis.statistics import Z95, squared_distances, total_variance

ALPHA = 1e-6
"""Chance that a test of a true statement fails, if its seed were not fixed."""


def agree(values: np.ndarray, expected: float) -> bool:
    return bool(stats.ttest_1samp(values, expected).pvalue > ALPHA)


def test_describe_by_hand() -> None:
    found = describe([[1.0, 2.0], [3.0, 2.0], [8.0, 2.0]], [3.0, 2.0])
    np.testing.assert_array_equal(found.mean, [4, 2])
    np.testing.assert_array_equal(found.variance, [13, 0])  # (9 + 1 + 16) / 2
    np.testing.assert_allclose(found.mcse, [np.sqrt(13 / 3), 0])
    np.testing.assert_allclose(found.variance_mcse, [np.sqrt((81 + 1 + 256) / 9), 0])  # (n - 3) = 0
    np.testing.assert_array_equal(found.bias, [1, 0])
    np.testing.assert_allclose(found.bias_high - found.bias, Z95 * found.mcse)
    np.testing.assert_allclose(found.bias - found.bias_low, Z95 * found.mcse)
    np.testing.assert_allclose(found.snr, [4 / np.sqrt(13), np.inf])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_p_value_is_that_of_a_t_test(dtype: type) -> None:
    draws = np.random.default_rng(0).normal(size=(30, 4)).astype(dtype)
    expected = stats.ttest_1samp(draws.astype(float), 0.1).pvalue
    # What rounding may do, 32 units in the last place, is taken off the bias.
    tolerance = 1e4 * np.finfo(dtype).eps
    np.testing.assert_allclose(describe(draws, np.full(4, 0.1)).p_value, expected, rtol=tolerance)


def test_p_values_are_uniform_without_bias() -> None:
    draws = np.random.default_rng(1).normal(3.0, 2.0, size=(12, 5000))
    assert stats.kstest(describe(draws, np.full(5000, 3.0)).p_value, "uniform").pvalue > ALPHA


def test_variance_is_unbiased_and_its_error_has_its_closed_form() -> None:
    n, deviation = 40, 1.7
    found = describe(np.random.default_rng(2).normal(0, deviation, size=(n, 20000)))
    assert agree(found.variance, deviation**2)
    assert agree(np.square(found.variance - deviation**2), 2 * deviation**4 / (n - 1))
    # Normal draws: E m4 = 3 s^4 (n - 1)^2 / n^2 and E s^4 = s^4 (n + 1) / (n - 1).
    expected = deviation**4 / n * (3 * (n - 1) ** 2 / n**2 - (n - 3) * (n + 1) / (n - 1) ** 2)
    assert agree(np.square(found.variance_mcse), expected)


def test_bias_band_covers_with_an_uncertain_reference() -> None:
    generator = np.random.default_rng(3)
    components, n = 2000, 1000
    reference = generator.normal(0, 0.05, size=components)
    found = describe(generator.normal(size=(n, components)), reference, np.full(components, 0.05))
    covered = int(np.sum((found.bias_low <= 0) & (found.bias_high >= 0)))
    assert stats.binomtest(covered, components, 0.95).pvalue > ALPHA
    # The reference's error adds to the draws'.
    alone = describe(generator.normal(size=(n, components)), reference)
    assert (
        stats.binomtest(int(np.sum(alone.bias_low > 0) + np.sum(alone.bias_high < 0)), components, 0.05).pvalue < ALPHA
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_variance(dtype: type) -> None:
    eps = np.finfo(dtype).eps
    draws = np.tile(np.array([0.1, 0.1, 0.0, 0.0], dtype), (1000, 1))
    reference = np.array([0.1, 0.2, 0.0, eps], dtype)
    found = describe(draws, reference)
    np.testing.assert_array_equal(found.variance, 0)
    np.testing.assert_array_equal(found.p_value, [1, 0, 1, 1])
    np.testing.assert_array_equal(found.snr, [np.inf, np.inf, np.nan, np.nan])


def test_rounding_alone_is_no_bias() -> None:
    jitter = np.random.default_rng(4).integers(0, 3, size=(10000, 1))
    draws = (1 + jitter * np.finfo(np.float32).eps).astype(np.float32)
    assert stats.ttest_1samp(draws[:, 0].astype(float), 1.0).pvalue < ALPHA
    assert describe(draws, np.ones(1, np.float32)).p_value == 1


def test_no_reference_no_bias() -> None:
    found = describe(np.arange(6.0).reshape(3, 2))
    assert all(np.isnan(value).all() for value in (found.bias, found.bias_low, found.bias_high, found.p_value))


@pytest.mark.parametrize(
    ("draws", "reference", "message"),
    [([[1.0]], None, "two replicates"), (1.0, None, "two replicates"), ([[1.0], [2.0]], [1.0, 2.0], r"\(2,\)")],
)
def test_describe_refuses(draws: object, reference: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe(draws, reference)


def test_total_variance_of_one_component_is_its_variance() -> None:
    draws = np.random.default_rng(5).gamma(2.0, size=(50, 1))
    found = describe(draws)
    variance, mcse = total_variance(squared_distances(draws))
    np.testing.assert_allclose([variance, mcse], [found.variance[0], found.variance_mcse[0]])


def test_paired_difference_is_that_of_a_paired_t_test() -> None:
    generator = np.random.default_rng(6)
    first = generator.normal(size=(40, 3))
    second = first + generator.normal(0.1, 0.2, size=(40, 3))
    found = paired(first, second)
    np.testing.assert_allclose(found.p_value, stats.ttest_rel(first, second).pvalue, rtol=1e-10)
    np.testing.assert_allclose(found.ratio, first.var(0) / second.var(0))
    with pytest.raises(ValueError, match="one shape"):
        paired(first, second[:, :2])


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.9])
def test_variance_ratio_under_common_seeds(correlation: float) -> None:
    generator = np.random.default_rng(7)
    n, components = 2000, 1000
    first = generator.normal(size=(n, components))
    other = correlation * first + np.sqrt(1 - correlation**2) * generator.normal(size=(n, components))
    found = paired(first, 2 * other)
    covered = int(np.sum((found.ratio_low <= 0.25) & (found.ratio_high >= 0.25)))
    assert stats.binomtest(covered, components, 0.95).pvalue > ALPHA
    # Normal pairs: n Var(log ratio) -> 4 (1 - correlation^2).
    logs = np.log(found.ratio)
    statistic = (components - 1) * logs.var(ddof=1) / (4 * (1 - correlation**2) / n)
    assert 2 * min(stats.chi2.cdf(statistic, components - 1), stats.chi2.sf(statistic, components - 1)) > ALPHA


def test_pairs_of_equals_and_constants() -> None:
    draws = np.random.default_rng(8).normal(size=(30, 2))
    same = paired(draws, draws)
    np.testing.assert_array_equal([same.p_value, same.ratio, same.ratio_low, same.ratio_high], 1)
    constant = paired(draws, np.zeros((30, 2)))
    assert np.isinf(constant.ratio).all()
    assert np.isnan(constant.ratio_low).all()


def arviz_khat(values: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    if int(importlib.metadata.version("arviz").split(".")[0]) == 0:
        return float(arviz.psislw(np.log(values))[1])
    from arviz_stats.base import array_stats

    # The core that arviz.loo uses; its `psislw` wants log weights with another sign.
    return float(array_stats._pareto_khat(values, r_eff=1, tail="right")[1])


@pytest.mark.parametrize("n", [100, 400, 2500, 10000])
@pytest.mark.parametrize("kind", ["gamma", "student", "pareto"])
def test_khat_is_that_of_arviz(n: int, kind: str) -> None:
    generator = np.random.default_rng(9)
    values = {
        "gamma": lambda: generator.gamma(2.0, size=n),
        "student": lambda: np.abs(generator.standard_t(3, size=n)),
        "pareto": lambda: generator.pareto(0.8, size=n) + 1,
    }[kind]()
    np.testing.assert_allclose(pareto_khat(values).khat, arviz_khat(values), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3, 0.7, 1.2])
def test_khat_of_a_known_tail(shape: float) -> None:
    values = stats.genpareto.rvs(shape, size=100_000, random_state=10)
    found = pareto_khat(values)
    size = int(np.ceil(3 * np.sqrt(len(values))))  # the excesses of such a tail have its shape, above any threshold
    fitted = (found.khat * (size + 10) - 10 * 0.5) / size  # without the prior
    error = (1 + shape) / np.sqrt(size)
    assert 2 * stats.norm.sf(abs(fitted - shape) / error) > ALPHA
    np.testing.assert_allclose(found.standard_error, (1 + found.khat) / np.sqrt(size))


@pytest.mark.parametrize(
    ("shape", "verdict"),
    [(0.0, "finite variance"), (0.5, "inconclusive"), (0.9, "infinite variance"), (1.6, "no mean")],
)
def test_verdicts(shape: float, verdict: str) -> None:
    assert pareto_khat(stats.genpareto.rvs(shape, size=20_000, random_state=11)).verdict == verdict


def test_khat_does_not_depend_on_scale_or_order() -> None:
    values = np.random.default_rng(12).pareto(2.0, size=500)
    np.testing.assert_allclose(pareto_khat(1e-30 * values[::-1]).khat, pareto_khat(values).khat)


@pytest.mark.parametrize(
    ("values", "khat", "verdict"),
    [
        (np.full(100, 3.0), -np.inf, "finite variance"),
        (np.zeros(100), -np.inf, "finite variance"),
        (np.full(100, 0.3) * (1 + 1e-16 * np.arange(100)), -np.inf, "finite variance"),
        (np.repeat([1.0, 2.0], 500), -np.inf, "finite variance"),
        (np.append(np.ones(999), 1000.0), np.nan, "inconclusive"),
        (np.arange(24.0), np.nan, "inconclusive"),
        (np.array([]), np.nan, "inconclusive"),
        (np.append(np.arange(100.0), np.inf), np.nan, "inconclusive"),
        (np.append(np.arange(100.0), np.nan), np.nan, "inconclusive"),
    ],
)
def test_guards(values: np.ndarray, khat: float, verdict: str) -> None:
    found = pareto_khat(values)
    np.testing.assert_equal(found.khat, khat)
    assert found.verdict == verdict
