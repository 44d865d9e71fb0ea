"""What the commands print when they are done: tables and the files that were written."""

from __future__ import annotations

import sys
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ppgrad.analysis import Comparison, History
from ppgrad.baselines import all_baselines
from ppgrad.cli.specification import baseline_words, estimator_words
from ppgrad.estimators import all_estimators


def print_estimators() -> None:
    """All estimators and baselines, with their words, their bias and their sources."""
    table = Table("word", "estimator", "bias", "source", title="Estimators")
    words = {estimator: word for word, estimator in estimator_words().items()}
    for estimator in all_estimators():
        facts = estimator.facts
        declared = ("biased", facts.order, ": ") if facts.biased else ("unbiased", facts.assumes, " if ")
        bias = declared[2].join(filter(None, declared[:2]))
        table.add_row(words.get(estimator, "–"), estimator.__name__, bias, facts.source)
    console = _console()
    console.print(table)
    table = Table("baseline", "source", title=f"Baselines of score (as words: {', '.join(baseline_words())})")
    for baseline in all_baselines():
        table.add_row(baseline.__name__, baseline.source)
    console.print(table)


def print_comparison(comparison: Comparison, files: list[Path]) -> None:
    """The table of totals, the sentences about it, and the files.

    Args:
        comparison: that was made.
        files: that were written.
    """
    console = _console()
    console.print(_totals_table(comparison))
    for sentence in comparison.sentences():
        console.print(sentence, highlight=False)
    console.print("Written:", *(f"  {file}" for file in files), sep="\n", highlight=False, soft_wrap=True)


def _totals_table(comparison: Comparison) -> Table:
    table = Table(title=comparison.name, caption=f"reference: {comparison.reference_kind}")
    costs = ("runs", "ms a\nreplicate", "ms a\nstep", "variance\n× s")
    for column in ("estimator", "bias", "variance", "× least", "SNR", "tail", *costs):
        table.add_column(column, justify="left" if column in ("estimator", "bias", "tail") else "right")
    for label, row in comparison.totals().iterrows():
        table.add_row(
            str(label),
            _bias(row),
            f"{row['variance']:.3g}",
            f"{row['ratio']:.3g}" if isfinite(row["ratio"]) and row["ratio"] >= 1 else "–",
            f"{row['snr']:.2g}",
            f"{row['tail']} (k̂ {row['khat']:.2f})" if isfinite(row["khat"]) else str(row["tail"]),
            f"{row['evaluations']:.0f}",
            f"{1e3 * row['seconds']:.3g}",
            f"{1e3 * row['seconds_per_step']:.3g}",
            f"{row['work_variance']:.2g}",
        )
    return table


def _bias(row: Any) -> str:
    declared = ", biased by its own account" if row["biased"] else ""
    if row["verdict"] == "unknown":
        return f"unknown{declared}"
    if row["verdict"] == "found":
        return f"[red]found, p = {row['p_value']:.1g}[/red]{declared}"
    return f"{row['verdict']}, p = {row['p_value']:.2g}{declared}"


def print_history(history: History, files: list[Path]) -> None:
    """The first, last, least and greatest value of each metric, and the files.

    Args:
        history: of the training.
        files: that were written.
    """
    table = Table(title=history.objective, caption=f"{history.steps} steps; first, last: means over a tenth of them")
    for column in ("metric", "first", "last", "least", "greatest"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for metric, row in history.summary().iterrows():
        table.add_row(str(metric), *("–" if isnan(number) else f"{number:.4g}" for number in row))
    console = _console()
    console.print(table)
    console.print("Written:", *(f"  {file}" for file in files), sep="\n", highlight=False, soft_wrap=True)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140)
