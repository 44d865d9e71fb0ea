"""From datasets to what ArviZ reads: ``InferenceData`` (ArviZ 0.23) or ``xarray.DataTree`` (1.x)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ppgrad.analysis.comparison_data import ComparisonData

if TYPE_CHECKING:
    from xarray import Dataset


def container(groups: Mapping[str, Dataset], attrs: Mapping[str, Any] | None = None) -> Any:
    """Put datasets together as the installed ArviZ wants them; ``to_netcdf(path)`` writes either kind.

    Args:
        groups: datasets by group name.
        attrs: of the whole; what netCDF cannot hold (bool, None, dict, list) is written as JSON.

    Returns:
        ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` from 1.0 on. Each line of ArviZ
        reads the other's files.
    """
    written = {name: group.assign_attrs(_attributes(group.attrs)) for name, group in groups.items()}
    attributes = _attributes(attrs or {})
    if int(version("arviz").split(".")[0]) >= 1:
        from xarray import DataTree

        tree = DataTree.from_dict(dict(written))
        tree.attrs.update(attributes)
        return tree
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0.23 announces 1.0 once a day, as it is imported
        import arviz
    return arviz.InferenceData(attrs=attributes, **written)


def comparison_container(comparison: ComparisonData) -> Any:
    """A comparison's draws, their norms and costs, and the reference, in three groups.

    Groups:
        gradients: ``grad`` (chain, draw, estimator, param).
        sample_stats_gradients: ``norm`` (chain, draw, estimator); ``wall_time`` in seconds and
            ``evaluations``, each for one gradient (estimator).
        reference: ``grad`` and ``mcse`` (param); left out if there is none.

    A chain is a block of replicates, which are independent of one another. Chains must be equally long: where the
    first blocks have one replicate more, it is left out, and the attribute ``draws_left_out`` counts them.
    """
    from xarray import Dataset

    labels = list(comparison.estimators)
    parameters = np.array(comparison.components)
    blocks = [_chains(comparison.flat(label), comparison.chains) for label in labels]
    draws = np.stack(blocks, axis=2)
    norms = np.stack([_chains(comparison.norms(label), comparison.chains) for label in labels], axis=2)
    chains, length = draws.shape[:2]
    coords = {"chain": np.arange(chains), "draw": np.arange(length), "estimator": np.array(labels)}
    costs = comparison.estimators.values()
    groups = {
        "gradients": Dataset(
            {"grad": (("chain", "draw", "estimator", "param"), draws, {"long_name": "gradient, ascent direction"})},
            coords={**coords, "param": parameters},
        ),
        "sample_stats_gradients": Dataset(
            {
                "norm": (("chain", "draw", "estimator"), norms, {"long_name": "Euclidean norm of the gradient"}),
                "wall_time": ("estimator", np.array([one.seconds for one in costs]), {"units": "s"}),
                "evaluations": ("estimator", np.array([one.evaluations for one in costs])),
            },
            coords=coords,
        ),
    }
    known = comparison.flat_reference()
    if known is not None:
        reference, mcse = known
        groups["reference"] = Dataset(
            {"grad": ("param", reference), "mcse": ("param", mcse)}, coords={"param": parameters}
        )
    return container(
        groups,
        {
            "inference_library": "ppgrad",
            "comparison": comparison.name,
            "seed": comparison.seed,
            "reference_kind": comparison.reference_kind,
            "draws_left_out": comparison.replicates - chains * length,
            "objectives": {label: one.description for label, one in comparison.estimators.items()},
            "biased": {label: one.biased for label, one in comparison.estimators.items()},
        },
    )


def _chains(values: np.ndarray, chains: int) -> np.ndarray:
    """(replicates, …) to (chain, draw, …); the first chains may have one replicate more, which goes."""
    length, rest = divmod(len(values), chains)
    starts = [chain * length + min(chain, rest) for chain in range(chains)]
    return np.stack([values[start : start + length] for start in starts])


def _attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    plain = (str, int, float, np.number, np.ndarray)
    return {
        str(key): value if isinstance(value, plain) and not isinstance(value, bool) else json.dumps(value)
        for key, value in attrs.items()
    }
