"""The gradient's noise that training reports: its formula, and that it has no bias."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from scipy.stats import ttest_1samp
from torch import Tensor

from ppgrad import ExpectedReturn, Pathwise, ScoreFunction
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.train.noise import DECAY, GradientNoise
from tests.train.programs import fit, program


def test_the_noise_that_is_reported_follows_its_formula() -> None:
    seen: list[Tensor] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            seen.append(torch.cat([leaf.grad.reshape(-1) for g in self.param_groups for leaf in g["params"]]).double())
            super().step()

    metrics = fit(ExpectedReturn(ScoreFunction()), program, steps=30, optimizer=Recorder, learning_rate=1e-3).metrics
    assert math.isnan(metrics["grad/variance"][1])
    for step in (2, 3, 30):
        g = torch.stack(seen[:step])
        w = DECAY ** torch.arange(step - 1, -1, -1, dtype=torch.float64)
        differences = 0.5 * g.diff(dim=0).square().sum(-1)
        variance = (differences * w[1:]).sum() / w[1:].sum()
        w = w / w.sum()
        signal = (w @ g).square().sum() - variance * w.square().sum()
        assert metrics["grad/variance"][step] == pytest.approx(float(variance), rel=1e-4)
        assert metrics["grad/snr"][step] == pytest.approx(float((signal.clamp(min=0) / variance).sqrt()), rel=1e-3)
        assert metrics["grad/norm"][step] == pytest.approx(float(g[-1].norm()), rel=1e-5)


@pytest.mark.parametrize("count", [2, 20, 150])
def test_the_reported_variance_is_unbiased_where_parameters_stand_still(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, deviation = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([1.0, 0.5, 3.0])
    variances, signals = [], []
    for _ in range(12_000 // count):
        noise = GradientNoise()
        for _ in range(count):
            variance, _ = noise.update(mean + deviation * torch.randn(3, generator=generator))
        state = noise.state()
        forgotten = DECAY**count
        weights = (1 - DECAY) * (1 + forgotten) / ((1 + DECAY) * (1 - forgotten))
        variances.append(variance)
        signals.append(float(state["mean"].square().sum()) / (1 - forgotten) ** 2 - variance * weights)
    level = SUITE_FAILURE_RATE / 100
    assert ttest_1samp(variances, float(deviation.square().sum())).pvalue > level
    assert ttest_1samp(signals, float(mean.square().sum())).pvalue > level
    assert ttest_1samp(variances, 1.2 * float(deviation.square().sum())).pvalue < level


def test_training_that_stands_still_reports_the_variance_of_its_gradient() -> None:
    """From the second step on; here 4 episodes of 2 (x − 3), with x of unit variance and two components."""
    found = []
    for seed in range(200):
        pyro.clear_param_store()
        history = fit(ExpectedReturn(Pathwise()), program, steps=2, learning_rate=0.0, seed=seed)
        found.append(history.final["grad/variance"])
    level = SUITE_FAILURE_RATE / 100
    assert ttest_1samp(found, 2 * 4 * 4).pvalue > level
    assert ttest_1samp(found, 1.6 * 2 * 4 * 4).pvalue < level


def test_a_gradient_without_noise_has_no_variance() -> None:
    noise = GradientNoise()
    found = [noise.update(torch.tensor([2.0, 1.0])) for _ in range(5)]
    assert found[-1] == (0.0, math.inf)
    empty = GradientNoise()
    empty.update(torch.zeros(2))
    assert empty.update(torch.zeros(2))[0] == 0.0
    assert math.isnan(empty.update(torch.zeros(2))[1])
