"""What lanes share: the samples of one bound have one subsample, and bounds have their own."""

from __future__ import annotations

import pytest
import torch

from ppgrad.engine.running.shared_noise import SubsampledPlate, shared_noise


@pytest.mark.parametrize(("bounds", "samples"), [(2, 3), (3, 2), (1, 4), (4, 1)])
def test_the_samples_of_a_bound_are_of_one_subsample(bounds: int, samples: int) -> None:
    torch.manual_seed(0)
    plate = SubsampledPlate(1000, 5, None)
    found = shared_noise({"data": plate}, bounds * samples, samples)["data"].reshape(bounds, samples, 5)
    assert bool((found == found[:, :1]).all())
    assert len({tuple(one.tolist()) for one in found[:, 0]}) == bounds
    assert all(len(set(one.tolist())) == 5 for one in found[:, 0])
