"""Reweighted wake-sleep: its three gradients, against sums over all draws."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import IWELBO, InvalidInput, InvalidProgram, Pathwise, ReweightedWakeSleep, ScoreFunction, Unsupported
from ppgrad.testing.problems import parameters

FAILURE_RATE = 1e-8
MODEL = {"t": 0.4, "w": [-0.7, 0.9]}
GUIDE = {"a": 0.3, "b": -0.6}
SEEN = torch.tensor(1.0)


def model(observations: Any = None) -> None:
    """z ~ Bernoulli(σ(t)), x | z ~ Bernoulli(σ(w_z)); x = 1 is seen."""
    p = parameters(MODEL)
    z = pyro.sample("z", dist.Bernoulli(logits=p["t"]))
    pyro.sample("x", dist.Bernoulli(logits=p["w"][0] * (1 - z) + p["w"][1] * z), obs=SEEN)


def guide(observations: Any = None) -> None:
    p = parameters(GUIDE)
    x = SEEN if observations is None else observations["x"]
    pyro.sample("z", dist.Bernoulli(logits=p["a"] + p["b"] * x))


def density(logit: Tensor, value: float) -> Tensor:
    return torch.nn.functional.logsigmoid(logit * (2 * value - 1))


def exact(insomnia: float, runs: int) -> dict[str, Tensor]:
    """The expected gradient, draw by draw."""
    p = {name: torch.tensor(start, requires_grad=True) for name, start in (MODEL | GUIDE).items()}
    log_p = torch.stack([density(p["t"], z) + density(p["w"][int(z)], 1.0) for z in (0.0, 1.0)])
    log_q = torch.stack([density(p["a"] + p["b"], z) for z in (0.0, 1.0)])
    total = torch.zeros(())
    for draws in itertools.product((0, 1), repeat=runs):
        chosen = list(draws)
        chance = log_q[chosen].sum().exp().detach()
        weights = (log_p - log_q)[chosen].softmax(-1).detach()
        total = total + chance * (weights * (log_p + insomnia * log_q)[chosen]).sum()
    for z, x in itertools.product((0.0, 1.0), repeat=2):
        chance = (density(p["t"], z) + density(p["w"][int(z)], x)).exp().detach()
        total = total + (1 - insomnia) * chance * density(p["a"] + p["b"] * x, z)
    gradients = torch.autograd.grad(total, list(p.values()))
    return dict(zip(p, gradients, strict=True))


@pytest.mark.parametrize("runs", [2, 4])
@pytest.mark.parametrize("insomnia", [1.0, 0.3, 0.0])
def test_its_gradients_are_those_of_the_table(insomnia: float, runs: int) -> None:
    objective = ReweightedWakeSleep(insomnia=insomnia, num_importance=runs, num_particles=2)
    found = ppgrad.measure(objective, model, guide, replicates=10_000, reference=exact(insomnia, runs))
    assert set(found.mean) == {"t", "w", "a", "b"}
    assert all(bool((p > FAILURE_RATE).all()) for p in found.p_value.values())


def continuous_model(observations: Any = None) -> None:
    p = parameters({"w": 0.8})
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("n", 3):
        pyro.sample("x", dist.Normal(p["w"] * z, 1.0), obs=torch.tensor([0.9, 0.2, 1.4]))


def continuous_guide(observations: Any = None) -> None:
    p = parameters({"m": 0.4, "s": 0.9})
    x = torch.tensor([0.9, 0.2, 1.4]) if observations is None else observations["x"]
    pyro.sample("z", dist.Normal(p["m"] * x.sum(), p["s"]))


def test_the_models_gradient_is_the_bounds() -> None:
    for seed in range(3):
        ours = ppgrad.gradient(ReweightedWakeSleep(num_importance=5), continuous_model, continuous_guide, seed=seed)
        bound = IWELBO(ScoreFunction(), num_importance=5)
        theirs = ppgrad.gradient(bound, continuous_model, continuous_guide, seed=seed)
        torch.testing.assert_close(ours["w"], theirs["w"])


def test_continuous_sites_asleep() -> None:
    """E over the model of ∇ log N(z; m Σx, s), z ~ N(0, 1), x_n ~ N(wz, 1), in closed form."""
    w, m, s = 0.8, 0.4, 0.9
    mean_square = 1 - 2 * m * 3 * w + m**2 * (9 * w**2 + 3)
    reference = {"m": (3 * w - m * (9 * w**2 + 3)) / s**2, "s": mean_square / s**3 - 1 / s}
    objective = ReweightedWakeSleep(insomnia=0.0, num_importance=2)
    found = ppgrad.measure(objective, continuous_model, continuous_guide, replicates=20_000)
    for name, value in reference.items():
        z = (float(found.mean[name]) - value) / float(found.mcse[name])
        assert math.erfc(abs(z) / 2**0.5) > FAILURE_RATE


def test_it_agrees_with_pyro() -> None:
    """The mean gradient of Pyro's own objective of the same name."""
    ours = ppgrad.measure(ReweightedWakeSleep(insomnia=0.5, num_importance=3), model, guide, replicates=5000)
    theirs: dict[str, list[Tensor]] = {name: [] for name in ours.mean}
    pyros = pyro.infer.ReweightedWakeSleep(num_particles=3, insomnia=0.5, vectorize_particles=False)
    pyro.clear_param_store()
    for _ in range(400):
        pyros.loss_and_grads(model, guide)
        for name, parameter in pyro.get_param_store().named_parameters():
            theirs[name].append(-parameter.grad.clone())
            parameter.grad = None
    for name, gradients in theirs.items():
        stacked = torch.stack(gradients)
        error = (stacked.var(0) / len(stacked) + ours.mcse[name] ** 2).sqrt()
        z = (stacked.mean(0) - ours.mean[name]) / error.clamp(min=1e-6)
        assert bool((torch.erfc(z.abs() / 2**0.5) > FAILURE_RATE).all())


def turning_guide(observations: Any = None) -> None:
    """The same guide; vmap cannot carry it."""
    p = parameters(GUIDE)
    x = SEEN if observations is None else observations["x"]
    pyro.sample("z", dist.Bernoulli(logits=p["a"] if x.item() < 0.5 else p["a"] + p["b"]))


def test_a_program_in_a_loop() -> None:
    objective = ReweightedWakeSleep(insomnia=0.4, num_importance=2)
    found = ppgrad.measure(objective, model, turning_guide, replicates=400, reference=exact(0.4, 2))
    assert math.isfinite(objective.loss(model, turning_guide))
    assert not objective.prepare(model, turning_guide).executor.vectorize
    assert all(bool((p > FAILURE_RATE).all()) for p in found.p_value.values())


def test_pyros_loop_trains_it() -> None:
    objective = ReweightedWakeSleep(insomnia=0.5, num_importance=4)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), loss=objective)
    assert all(math.isfinite(svi.step()) for _ in range(5))
    for name, start in (MODEL | GUIDE).items():
        assert not torch.equal(pyro.param(name).detach(), torch.tensor(start))
    assert len(objective._prepared) == 1  # the guide that sleeps is the same one every time


def test_bad_input() -> None:
    with pytest.raises(InvalidInput, match="one sample has the weight 1"):
        ReweightedWakeSleep(num_importance=1)
    for insomnia in (-0.1, 1.1, math.nan, True):
        with pytest.raises(InvalidInput, match="insomnia is a share"):
            ReweightedWakeSleep(insomnia=insomnia)
    with pytest.raises(Unsupported, match="cannot serve site 'z'"):
        ppgrad.gradient(ReweightedWakeSleep(Pathwise()), continuous_model, continuous_guide)

    def deaf() -> None:
        guide()

    def factored(observations: Any = None) -> None:
        model()
        pyro.factor("f", torch.tensor(0.3))

    with pytest.raises(InvalidProgram, match="takes no observations="):
        ppgrad.gradient(ReweightedWakeSleep(insomnia=0.5), model, deaf)
    with pytest.raises(InvalidProgram, match="factor or reward 'f'"):
        ppgrad.gradient(ReweightedWakeSleep(insomnia=0.5), factored, guide)
    ppgrad.gradient(ReweightedWakeSleep(), factored, deaf)
