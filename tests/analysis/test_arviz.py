from __future__ import annotations

import importlib.metadata
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from ppgrad.analysis.arviz import container

OLD = importlib.metadata.version("arviz").startswith("0.")


def arviz() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz as library
    return library


def groups(tree: Any) -> list[str]:
    return sorted(name.strip("/") for name in (tree.groups() if OLD else tree.children))


def dataset(tree: Any, group: str) -> xarray.Dataset:
    return tree[group] if OLD else tree[group].to_dataset()


def test_container_is_what_the_installed_arviz_reads(make) -> None:
    tree = make().to_arviz()
    assert type(tree).__name__ == ("InferenceData" if OLD else "DataTree")
    assert groups(tree) == ["gradients", "reference", "sample_stats_gradients"]


def test_layout(make) -> None:
    comparison = make(replicates=10)
    tree = comparison.to_arviz()
    gradients = dataset(tree, "gradients")
    assert gradients["grad"].dims == ("chain", "draw", "estimator", "param")
    assert list(gradients["estimator"].values) == ["score", "score+loo", "pathwise"]
    assert list(gradients["param"].values) == comparison.components
    # The second block of replicates is the second chain.
    draws = comparison.estimators["score+loo"].draws["net.weight"][:, 1, 0]
    found = gradients["grad"].sel(estimator="score+loo", param="net.weight[1, 0]")
    np.testing.assert_array_equal(found, draws.reshape(2, 5))
    stats = dataset(tree, "sample_stats_gradients")
    assert stats["norm"].dims == ("chain", "draw", "estimator")
    np.testing.assert_allclose(stats["norm"], np.sqrt(np.square(gradients["grad"]).sum("param")))
    np.testing.assert_allclose(stats["wall_time"], [1e-4, 2e-4, 3e-4])
    np.testing.assert_array_equal(stats["evaluations"], [1, 2, 3])
    reference = dataset(tree, "reference")
    np.testing.assert_array_equal(reference["grad"], [1, -2, 0.5, 0, 0.25])
    np.testing.assert_array_equal(reference["mcse"], 0)


def test_an_odd_replicate_is_left_out_and_counted(make) -> None:
    comparison = make(replicates=11)
    tree = comparison.to_arviz()
    grad = dataset(tree, "gradients")["grad"].sel(estimator="score", param="log_scale").values
    draws = comparison.estimators["score"].draws["log_scale"]
    np.testing.assert_array_equal(grad, [draws[0:5], draws[6:11]])
    assert tree.attrs["draws_left_out"] == 1


def test_no_reference_no_group(make) -> None:
    assert "reference" not in groups(make(reference=False).to_arviz())


def test_netcdf_holds_everything(make, tmp_path: Path) -> None:
    tree = make(biased=True).to_arviz()
    path = str(tmp_path / "comparison.nc")
    tree.to_netcdf(path)
    read = arviz().from_netcdf(path)
    assert groups(read) == groups(tree)
    for group in groups(tree):
        xarray.testing.assert_identical(dataset(read, group).load(), dataset(tree, group))
    assert {key: read.attrs[key] for key in tree.attrs} == dict(tree.attrs)
    assert json.loads(read.attrs["biased"]) == {"score": False, "score+loo": False, "pathwise": True}
    assert json.loads(read.attrs["objectives"])["score"] == "o(score)"
    assert read.attrs["seed"] == 7


@pytest.mark.parametrize("value", [True, None, {"a": [1, None]}, [False]])
def test_attributes_that_netcdf_cannot_hold_are_json(value: object, tmp_path: Path) -> None:
    group = xarray.Dataset({"x": ("draw", np.zeros(2))}, attrs={"inside": value})
    tree = container({"rollouts": group}, {"outside": value, "words": "as they are", "number": 1.5})
    tree.to_netcdf(str(tmp_path / "attributes.nc"))
    read = arviz().from_netcdf(str(tmp_path / "attributes.nc"))
    assert json.loads(read.attrs["outside"]) == value
    assert json.loads(dataset(read, "rollouts").attrs["inside"]) == value
    assert read.attrs["words"] == "as they are"
    assert read.attrs["number"] == 1.5
    assert group.attrs == {"inside": value}  # what was given is left alone


def test_arviz_can_use_it(make) -> None:
    gradients = dataset(make().to_arviz(), "gradients")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ArviZ's own
        ess = arviz().ess(gradients)
    assert ess["grad"].dims == ("estimator", "param")
