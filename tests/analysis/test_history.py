"""The history of a training run: tables, ArviZ, pictures."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import xarray

from ppgrad.analysis import History

OLD = importlib.metadata.version("arviz").startswith("0.")


def history(steps: int = 20, seed: int | None = 0, evaluated: bool = True, **more: Any) -> History:
    index = pandas.RangeIndex(1, steps + 1, name="step")
    columns = {
        "train/loss": np.linspace(5, 1, steps),
        "grad/norm": np.linspace(2, 1, steps),
        "grad/snr": [np.nan, *np.ones(steps - 1)],
        "rollout/ep_rew_mean": np.linspace(-5, -1, steps),
    }
    if evaluated:
        columns["eval/mean_reward"] = [float(-step) if step % 5 == 0 else np.nan for step in index]
    return History(pandas.DataFrame(columns, index=index), "ExpectedReturn(Pathwise())", seed, **more)


def training(tree: Any) -> xarray.Dataset:
    return tree["training"] if OLD else tree["training"].to_dataset()


def test_final_and_summary() -> None:
    one = history(steps=18)
    assert one.steps == 18
    assert one.final["train/loss"] == 1
    assert one.final["eval/mean_reward"] == -15
    table = one.summary()
    assert table.loc["train/loss", "first"] == 5
    assert table.loc["train/loss", "last"] == 1
    assert table.loc["eval/mean_reward", "greatest"] == -5
    assert np.isnan(table.loc["eval/mean_reward", "first"])


def test_arviz_has_a_group_of_runs_and_steps(tmp_path: Path) -> None:
    tree = history(steps=20).to_arviz({1: history(steps=10, seed=None, evaluated=False)})
    assert type(tree).__name__ == ("InferenceData" if OLD else "DataTree")
    group = training(tree)
    assert set(group.data_vars) == {"train_loss", "grad_norm", "grad_snr", "rollout_ep_rew_mean", "eval_mean_reward"}
    assert group["train_loss"].dims == ("run", "step")
    assert group.sizes == {"run": 2, "step": 20}
    assert group["train_loss"].attrs["long_name"] == "train/loss"
    assert group["train_loss"].sel(run=1, step=10) == 1
    assert np.isnan(group["train_loss"].sel(run=1, step=11))
    assert np.isnan(group["eval_mean_reward"].sel(run=1)).all()
    assert json.loads(tree.attrs["seeds"]) == [0, None]
    tree.to_netcdf(str(tmp_path / "history.nc"))
    with xarray.open_dataset(tmp_path / "history.nc", group="training") as read:
        np.testing.assert_array_equal(read["grad_snr"], group["grad_snr"])


def test_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    files = history().save(tmp_path / "new")
    assert [file.name for file in files] == ["history.nc", "training.png"]
    assert all(file.stat().st_size > 1000 for file in files)
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"history.nc", "training.png"}
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Cannot write a training history"):
        history().save(tmp_path / "file")


def test_pictures_show_what_there_is() -> None:
    axes = history().plot_training().axes
    assert [ax.get_ylabel() for ax in axes] == ["rollout/ep_rew_mean", "grad/norm", "grad/snr"]
    bound = History(history(evaluated=False).metrics.drop(columns="rollout/ep_rew_mean"))
    assert [ax.get_ylabel() for ax in bound.plot_training().axes] == ["train/loss", "grad/norm", "grad/snr"]


def test_needs_no_torch() -> None:
    code = "import sys; from ppgrad.analysis import History; print('torch' in sys.modules or 'pyro' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
