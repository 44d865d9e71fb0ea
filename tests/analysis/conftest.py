"""A comparison whose every number is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ppgrad.analysis import Comparison, EstimatorDraws

TRUTH = {"net.weight": np.array([[1.0, -2.0], [0.5, 0.0]]), "log_scale": np.array(0.25)}
DEVIATIONS = {"score": 4.0, "score+loo": 1.5, "pathwise": 0.5}


@pytest.fixture
def make() -> Callable[..., Comparison]:
    """Comparisons of Gaussian estimators that share their noise, replicate by replicate."""

    def build(
        replicates: int = 400,
        deviations: dict[str, float] = DEVIATIONS,
        truth: dict[str, np.ndarray] = TRUTH,
        shift: float = 0.0,
        reference: bool = True,
        biased: bool = False,
        name: str = "gaussian: costs $1 a run",
    ) -> Comparison:
        generator = np.random.default_rng(5)
        noise = {key: generator.normal(size=(replicates, *value.shape)) for key, value in truth.items()}
        estimators = {}
        for place, (label, deviation) in enumerate(deviations.items()):
            draws = {key: truth[key] + deviation * noise[key] for key in truth}
            if place == len(deviations) - 1:
                draws["log_scale"] = draws["log_scale"] + shift
            estimators[label] = EstimatorDraws(
                draws, place + 1, 1e-4 * (place + 1), biased and place == len(deviations) - 1, "O(1)", f"o({label})"
            )
        known = truth if reference else None
        return Comparison(estimators, known, None, "exact" if reference else "none", 7, name)

    return build
