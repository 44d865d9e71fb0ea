"""A comparison as tables and as sentences."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ppgrad.analysis.bias_test import DOUBT, smallest_bias_found
from ppgrad.analysis.comparison_data import ComparisonData
from ppgrad.analysis.statistics import Array, paired, total_variance, variance_ratio
from ppgrad.analysis.tail import pareto_khat

if TYPE_CHECKING:
    from pandas import DataFrame

Places = NDArray[np.intp]


def summary(comparison: ComparisonData, limit: int | None = 1000) -> DataFrame:
    """See `Comparison.summary`."""
    import pandas

    chosen = widest(comparison, limit)
    known = comparison.flat_reference()
    reference = np.full(len(chosen), np.nan) if known is None else known[0][chosen]
    frames = []
    for label, one in comparison.estimators.items():
        found = comparison.statistics[label]
        draws = comparison.flat(label)
        tails = [pareto_khat(np.abs(draws[:, component])) for component in chosen]
        columns = ("mean", "bias", "bias_low", "bias_high", "p_value", "variance", "variance_mcse", "mcse", "snr")
        frame = pandas.DataFrame({column: getattr(found, column)[chosen] for column in columns})
        frame["khat"] = [tail.khat for tail in tails]
        frame["tail"] = [tail.verdict for tail in tails]
        frame["biased"] = "biased" if one.biased else ""
        frame["verdict"] = _verdicts(found.p_value, found.inconclusive)[chosen]
        frame["smallest_bias_found"] = smallest_bias_found(found.bias_mcse[chosen], comparison.replicates)
        frame["evaluations"] = one.evaluations
        frame["seconds"] = one.seconds
        frame["work_variance"] = frame["variance"] * one.step
        frame["reference"] = reference
        names = [comparison.components[component] for component in chosen]
        frame.index = pandas.MultiIndex.from_product([[label], names], names=["estimator", "parameter"])
        frames.append(frame)
    table = pandas.concat(frames)
    table.attrs["left_out"] = len(comparison.components) - len(chosen)
    return table


def totals(comparison: ComparisonData) -> DataFrame:
    """See `Comparison.totals`."""
    import pandas

    squares = {label: comparison.squared_distances(label) for label in comparison.estimators}
    rows = []
    for label, one in comparison.estimators.items():
        found = comparison.statistics[label]
        variance, mcse = total_variance(squares[label])
        tail = pareto_khat(comparison.norms(label))
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = np.linalg.norm(found.mean) / np.sqrt(variance)
        rows.append(
            {
                "variance": variance,
                "variance_mcse": mcse,
                "snr": snr,
                "p_value": adjusted(found.p_value),
                "khat": tail.khat,
                "khat_mcse": tail.standard_error,
                "tail": tail.verdict,
                "biased": "biased" if one.biased else "",
                "evaluations": one.evaluations,
                "seconds": one.seconds,
                "seconds_per_replicate": one.seconds,
                "seconds_per_step": one.step,
                "work_variance": variance * one.step,
                "verdict": _verdict(adjusted(found.p_value), found.inconclusive),
                "smallest_bias_found": float(np.max(smallest_bias_found(found.bias_mcse, comparison.replicates))),
            }
        )
    table = pandas.DataFrame(rows, index=pandas.Index(list(squares), name="estimator"))
    least = _least(table)
    ratios = [_ratio(squares[label], squares[least], label == least) for label in squares]
    for place, column in enumerate(("ratio", "ratio_low", "ratio_high")):
        table.insert(2 + place, column, [ratio[place] for ratio in ratios])
    table.attrs["least"] = least
    return table


def pairs(comparison: ComparisonData) -> DataFrame:
    """See `Comparison.pairs`."""
    import pandas

    squares = {label: comparison.squared_distances(label) for label in comparison.estimators}
    rows = []
    for first, second in combinations(comparison.estimators, 2):
        ratio, low, high = _ratio(squares[first], squares[second])
        z, p_value = _differences(comparison, first, second)
        rows.append((first, second, ratio, low, high, z, p_value))
    columns = ["first", "second", "ratio", "ratio_low", "ratio_high", "z", "p_value"]
    return pandas.DataFrame(rows, columns=columns).set_index(["first", "second"])


def sentences(comparison: ComparisonData) -> list[str]:
    """See `Comparison.sentences`."""
    table = totals(comparison)
    least = str(table.attrs["least"])
    said = _bias_sentences(comparison, table)
    for label, row in table.iterrows():
        if row["variance"] == 0:
            said.append(f"The gradients of {label} have no variance.")
            continue
        if label == least or not np.isfinite(row["ratio"]):
            continue
        band = f" (95%: {row['ratio_low']:.3g} to {row['ratio_high']:.3g})" if row["ratio_low"] > 0 else ""
        said.append(f"The variance of {label} is {row['ratio']:.3g}{band} times that of {least}.")
    trusted = table.loc[_trusted(table)]
    if len(trusted) > 1:
        best = trusted["work_variance"].idxmin()
        said.append(f"For a given time, {best} gives the smallest variance: variance × seconds of a step is the least.")
    for label, row in table.iterrows():
        if row["tail"] in ("infinite variance", "no mean"):
            said.append(
                f"The gradients of {label} look like they have {row['tail']} "
                f"(k̂ = {row['khat']:.2f} ± {row['khat_mcse']:.2f}): its variance here means little."
            )
    return said


def widest(comparison: ComparisonData, limit: int | None) -> Places:
    """Places of at most ``limit`` components: those whose variance is largest, in their own order."""
    count = len(comparison.components)
    if limit is None or count <= limit:
        return np.arange(count)
    largest = np.max([found.variance for found in comparison.statistics.values()], axis=0)
    return np.sort(np.argsort(-largest, kind="stable")[: max(limit, 1)])


def _verdicts(p_values: Array, inconclusive: NDArray[np.bool_]) -> NDArray[np.str_]:
    """What each p-value says of bias."""
    said = np.where(inconclusive, "inconclusive", "none found")
    return np.where(np.isnan(p_values), "unknown", np.where(p_values < DOUBT, "found", said))


def _verdict(p_value: float, inconclusive: NDArray[np.bool_]) -> str:
    """What the smallest adjusted p-value says, where the replicates cannot tell of some components."""
    return str(_verdicts(np.array(p_value), np.array(inconclusive.any())))


def adjusted(p_values: Array) -> float:
    """The smallest of several p-values, after Bonferroni; NaN where there are none."""
    known = p_values[~np.isnan(p_values)]
    return float(min(1.0, known.min() * len(known))) if len(known) else float("nan")


def _bias_sentences(comparison: ComparisonData, table: DataFrame) -> list[str]:
    if comparison.reference is None:
        return ["There is no reference: nothing is said of bias."]
    by = {verdict: [str(label) for label in rows.index] for verdict, rows in table.groupby("verdict")}
    against = f"against the reference ({comparison.reference_kind}"
    said = []
    if fine := by.get("none found"):
        said.append(
            f"No bias was found in {_listed(fine)} {against}; "
            f"smallest adjusted p-value {table.loc[fine, 'p_value'].min():.2g})."
        )
    for label in by.get("inconclusive", []):
        untold = [
            component
            for component, open_ in zip(comparison.components, comparison.statistics[label].inconclusive, strict=True)
            if open_
        ]
        said.append(
            f"Whether {label} is biased is inconclusive for {_some(untold)}: {comparison.replicates:,} replicates draw "
            "the values that decide too rarely. No bias was found in what they can tell "
            f"{against}; adjusted p-value {table.loc[label, 'p_value']:.2g})."
        )
    for label in by.get("found", []):
        order = comparison.estimators[label].order
        own = f", as it says of itself{f' ({order})' if order else ''}" if table.loc[label, "biased"] else ""
        said.append(f"{label} looks biased {against}): adjusted p-value {table.loc[label, 'p_value']:.2g}{own}.")
    return said + _noisy_reference(comparison)


def _noisy_reference(comparison: ComparisonData) -> list[str]:
    """Of which estimators the mean is known better than the reference."""
    known = comparison.flat_reference()
    if known is None or not known[1].any():
        return []
    error = np.linalg.norm(known[1])
    better = [label for label, one in comparison.statistics.items() if np.linalg.norm(one.mcse) < error]
    if not better:
        return []
    return [
        f"The reference is noisier than {_listed(better)}: its standard error is {error:.2g}, theirs "
        f"{_listed([f'{np.linalg.norm(comparison.statistics[label].mcse):.2g}' for label in better])}. "
        "Give reference=, or take more replicates, to see a smaller bias."
    ]


def _some(names: list[str]) -> str:
    return _listed(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more components"


def _differences(comparison: ComparisonData, first: str, second: str) -> tuple[float, float]:
    """Largest |z| and smallest adjusted p-value of the paired mean differences."""
    found = [
        paired(comparison.estimators[first].draws[name], comparison.estimators[second].draws[name])
        for name in comparison.parameters
    ]
    p_values = np.concatenate([np.ravel(pair.p_value) for pair in found])
    difference = np.concatenate([np.ravel(pair.difference) for pair in found])
    mcse = np.concatenate([np.ravel(pair.mcse) for pair in found])
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(p_values == 1, 0, np.abs(difference) / mcse)
    return float(np.max(z)), adjusted(p_values)


def _ratio(first: Array, second: Array, same: bool = False) -> tuple[float, float, float]:
    if same:
        return 1.0, 1.0, 1.0
    ratio, low, high = variance_ratio(first, second)
    return float(ratio), float(low), float(high)


def _trusted(table: DataFrame) -> Array:
    """Which estimators neither say that they are biased nor were found to be; all if there are none."""
    trusted = ((table["biased"] == "") & ~(table["p_value"] < DOUBT)).to_numpy()
    return trusted if trusted.any() else np.ones(len(table), dtype=bool)


def _least(table: DataFrame) -> str:
    """The trusted estimator of the smallest variance above 0; any without variance would make others infinite."""
    trusted = table.loc[_trusted(table), "variance"]
    return str((trusted[trusted > 0] if (trusted > 0).any() else trusted).idxmin())


def _listed(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
