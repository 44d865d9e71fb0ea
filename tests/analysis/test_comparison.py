from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ppgrad.analysis import Comparison, EstimatorDraws, describe, paired, pareto_khat, saving

FILES = [
    "comparison.nc",
    "summary.csv",
    "totals.csv",
    "pairs.csv",
    "bias.png",
    "distributions.png",
    "variance_cost.png",
]


def test_importing_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'pyro', 'arviz', 'matplotlib', 'pandas', 'xarray', 'scipy'}"
    code = f"import sys, ppgrad.analysis; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_summary_has_a_row_for_each_component(make) -> None:
    comparison = make()
    table = comparison.summary()
    assert list(table.index.names) == ["estimator", "parameter"]
    names = ["net.weight[0, 0]", "net.weight[0, 1]", "net.weight[1, 0]", "net.weight[1, 1]", "log_scale"]
    assert list(table.loc["score"].index) == names
    assert list(table.columns) == [
        *("mean", "bias", "bias_low", "bias_high", "p_value", "variance", "variance_mcse", "mcse", "snr"),
        *("khat", "tail", "biased", "verdict", "smallest_bias_found", "evaluations", "seconds"),
        *("work_variance", "reference"),
    ]
    draws = comparison.estimators["score+loo"].draws["net.weight"]
    found = describe(draws, comparison.reference["net.weight"])
    row = table.loc[("score+loo", "net.weight[0, 1]")]
    for column in ("mean", "bias", "bias_low", "bias_high", "p_value", "variance", "variance_mcse", "mcse", "snr"):
        assert row[column] == getattr(found, column)[0, 1]
    assert row["khat"] == pareto_khat(np.abs(draws[:, 0, 1])).khat
    assert row["work_variance"] == row["variance"] * 2e-4
    assert row["reference"] == -2
    assert row["biased"] == ""


def test_summary_keeps_the_components_of_largest_variance(make) -> None:
    comparison = make()
    variances = comparison.summary().loc["score", "variance"]
    table = comparison.summary(limit=2)
    assert set(table.loc["score"].index) == set(variances.nlargest(2).index)
    assert table.attrs["left_out"] == 3


def test_totals(make) -> None:
    comparison = make(biased=True)
    table, rows = comparison.totals(), comparison.summary()
    for label in comparison.estimators:
        np.testing.assert_allclose(table.loc[label, "variance"], rows.loc[label, "variance"].sum())
        assert table.loc[label, "p_value"] == min(1, 5 * rows.loc[label, "p_value"].min())
        norm = np.linalg.norm(rows.loc[label, "mean"])
        np.testing.assert_allclose(table.loc[label, "snr"], norm / np.sqrt(table.loc[label, "variance"]))
        assert table.loc[label, "khat"] == pareto_khat(comparison.norms(label)).khat
    # pathwise says that it is biased, so the others are not held against it.
    assert table.attrs["least"] == "score+loo"
    assert table.loc["score+loo", "ratio"] == 1
    np.testing.assert_allclose(table.loc["score", "ratio"], (4 / 1.5) ** 2)
    np.testing.assert_allclose(table["work_variance"], table["variance"] * table["seconds"])
    assert list(table["biased"]) == ["", "", "biased"]


def test_pairs_share_their_seeds(make) -> None:
    comparison = make(shift=0.3)
    table = comparison.pairs()
    assert list(table.index) == [("score", "score+loo"), ("score", "pathwise"), ("score+loo", "pathwise")]
    row = table.loc[("score", "pathwise")]
    # The noise is shared and normal: the ratio is exact, and so are its ends.
    np.testing.assert_allclose(row[["ratio", "ratio_low", "ratio_high"]].astype(float), 64)
    one, two = (comparison.flat(label) for label in ("score", "pathwise"))
    pair = paired(one, two)
    np.testing.assert_allclose(row["p_value"], min(1, 5 * pair.p_value.min()))
    np.testing.assert_allclose(row["z"], np.max(np.abs(pair.difference) / pair.mcse))


def test_sentences_say_who_is_biased_and_who_is_best(make) -> None:
    words = " ".join(make(replicates=4000, shift=0.3, biased=True).sentences())
    assert "pathwise looks biased" in words
    assert "as it says of itself (O(1))" in words
    assert "No bias was found in score and score+loo" in words
    assert "The variance of score is 7.11 (95%: 7.11 to 7.11) times that of score+loo." in words
    words = " ".join(make(reference=False).sentences())
    assert "There is no reference" in words
    assert "pathwise gives the smallest variance" in words


def test_an_estimator_without_variance(make) -> None:
    comparison = make(deviations={"score": 1.0, "score+loo": 0.5, "enumerate": 0.0})
    table = comparison.totals()
    assert table.loc["enumerate", "variance"] == 0
    assert table.loc["enumerate", "p_value"] == 1
    assert table.loc["enumerate", "tail"] == "finite variance"
    np.testing.assert_allclose(table["ratio"], [4, 1, 0])
    assert "The gradients of enumerate have no variance." in comparison.sentences()
    assert comparison.pairs().loc[("score", "enumerate"), "ratio"] == np.inf


def test_an_infinite_variance_is_said_aloud() -> None:
    draws = {"x": np.random.default_rng(0).standard_cauchy(size=(5000,))}
    comparison = Comparison({"cauchy": EstimatorDraws(draws, 1, 1e-3)}, None, None, "none", 0)
    assert any("infinite variance" in sentence for sentence in comparison.sentences())


def test_save(make, tmp_path: Path) -> None:
    comparison = make()
    folder = tmp_path / "new" / "results"
    paths = comparison.save(folder)
    assert paths == [folder / name for name in FILES]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["results"]
    (folder / "mine.txt").write_text("kept")
    (folder / "totals.csv").write_text("old")
    comparison.save(str(folder))
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "mine.txt"])
    assert (folder / "totals.csv").read_text().startswith("estimator,variance")


def test_saved_tables_read_back(make, tmp_path: Path) -> None:
    import pandas

    comparison = make()
    comparison.save(tmp_path)
    for name, index, table in (("summary", [0, 1], comparison.summary()), ("pairs", [0, 1], comparison.pairs())):
        read = pandas.read_csv(tmp_path / f"{name}.csv", index_col=index, keep_default_na=False)
        pandas.testing.assert_frame_equal(read, table, check_dtype=False)


def test_save_names_the_folder_that_it_cannot_write(make, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "below"):
        with pytest.raises(OSError, match=str(folder)):
            make().save(folder)
    assert file.read_text() == "mine"


def test_save_leaves_nothing_behind_when_it_fails(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(comparison: Comparison) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "plot_variance_cost", fail)
    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(OSError, match="No space left on device"):
            make().save(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("replicates", [2, 3, 24])
@pytest.mark.parametrize("deviations", [{"alone": 1.0}, {"one": 0.0, "two": 0.0}, {"one": 1.0, "two": 0.0}])
def test_small_and_constant_comparisons_are_saved(make, replicates: int, deviations: dict, tmp_path: Path) -> None:
    comparison = make(replicates=replicates, deviations=deviations)
    assert len(comparison.save(tmp_path / "small")) == len(FILES)
    assert comparison.sentences()


def test_what_does_not_fit_together_is_refused(make) -> None:
    fine = make()
    one = fine.estimators["score"]
    shorter = EstimatorDraws({name: draws[:-1] for name, draws in one.draws.items()}, 1, 1.0)
    uneven = EstimatorDraws({"a": np.zeros(3), "b": np.zeros(4)}, 1, 1.0)
    for estimators, reference, message in (
        ({}, None, "at least one"),
        ({"one": EstimatorDraws({}, 1, 1.0)}, None, "'one' have no parameters"),
        ({"one": one, "two": shorter}, None, "draws of 'two'"),
        ({"one": uneven}, None, "cannot be split"),
        ({"one": EstimatorDraws({"a": np.zeros(1)}, 1, 1.0)}, None, "cannot be split into 2"),
        ({"one": one}, {"log_scale": np.zeros(())}, "'net.weight'"),
        ({"one": one}, {"net.weight": np.zeros((2, 2)), "log_scale": np.zeros(2)}, "'log_scale'"),
    ):
        with pytest.raises(ValueError, match=message):
            Comparison(estimators, reference, None, "given", 0)
