"""`fit`: what it trains, as Pyro's ``SVI`` would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.infer.autoguide import AutoIAFNormal
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    ELBO,
    Critic,
    ExpectedReturn,
    MovingAverage,
    Pathwise,
    ScoreFunction,
)
from tests.train.programs import DATA, Policy, episode, fit, guide, model, program, weights


def test_it_finds_the_optimum_of_each_kind_of_program() -> None:
    history = fit(ExpectedReturn(Pathwise()), program, steps=400, learning_rate=0.05)
    assert pyro.param("loc").detach().tolist() == pytest.approx([3.0, 3.0], abs=0.3)
    assert history.steps == 400
    assert history.stopped == "steps"
    pyro.clear_param_store()
    fit(ELBO(Pathwise(), num_particles=16), model, guide, (DATA,), steps=600, learning_rate=0.05, schedule="linear")
    precision = 1 / 25 + len(DATA)
    assert pyro.param("loc").item() == pytest.approx(float(DATA.sum()) / precision, abs=0.1)
    assert pyro.param("scale").item() == pytest.approx(precision**-0.5, rel=0.2)


@pytest.mark.parametrize(
    "estimator",
    [lambda: Pathwise(), lambda: ScoreFunction(MovingAverage()), lambda: ScoreFunction(Critic(nn.Linear(1, 1)))],
    ids=["pathwise", "average", "critic"],
)
@pytest.mark.parametrize("kind", ["pyro", "torch"])
def test_its_steps_are_those_of_svi(estimator: Callable[[], Any], kind: str) -> None:
    found = []
    for way in ("svi", "fit"):
        pyro.clear_param_store()
        torch.manual_seed(1)
        policy, objective = Policy(), ExpectedReturn(estimator(), num_particles=3)
        optimizer = pyro.optim.Adam({"lr": 0.05})
        if way == "svi":
            pyro.set_rng_seed(5)
            svi = SVI(episode, None, optimizer, loss=objective)
            losses = [svi.step(policy) for _ in range(20)]
        elif kind == "pyro":
            history = fit(objective, episode, args=(policy,), steps=20, seed=5, optimizer=optimizer)
            losses = list(history.metrics["train/loss"])
        else:
            history = fit(objective, episode, args=(policy,), steps=20, seed=5, learning_rate=0.05)
            losses = list(history.metrics["train/loss"])
        found.append((losses, weights(), objective.memory))
    (losses, trained, memory), (own_losses, own_trained, own_memory) = found
    assert own_losses == losses
    assert own_trained.keys() == trained.keys()
    assert all(torch.equal(own_trained[name], trained[name]) for name in trained)
    assert str(own_memory) == str(memory)
    assert any(bool(value.abs().sum() > 0) for name, value in trained.items() if "critic" in name) == (
        "critic" in str(trained.keys())
    )


def test_the_global_generators_are_left_alone_under_a_seed() -> None:
    before = pyro.util.get_rng_state()
    fit(ExpectedReturn(), program, steps=2)
    after = pyro.util.get_rng_state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["random"] == after["random"]
    losses = []
    for _ in range(2):
        pyro.clear_param_store()
        losses.append(fit(ExpectedReturn(), program, steps=2, seed=None).metrics["train/loss"][1])
    assert losses[0] != losses[1]


def test_arguments_may_depend_on_the_step(tmp_path: Path) -> None:
    seen: list[int] = []

    def batch(step: int) -> tuple[Tensor]:
        seen.append(step)
        return (DATA[torch.randperm(5)[: 2 + step % 2]],)

    fit(ELBO(), model, guide, batch, steps=6)
    assert seen == [0, *range(6)]
    whole = weights()
    for steps in (3, 6):
        pyro.clear_param_store()
        fit(ELBO(), model, guide, batch, steps=steps, checkpoint=tmp_path / "run.pt", resume=True)
    assert all(torch.equal(whole[name], value) for name, value in weights().items())


def test_a_parameter_that_appears_late_is_trained() -> None:
    def late() -> None:
        x = ppgrad.policy("x", dist.Normal(pyro.param("a", torch.tensor(0.0)), 1.0))
        seen.append(1)
        if len(seen) > 5:
            x = x + pyro.param("b", torch.tensor(0.0))
        ppgrad.cost("f", (x - 3) ** 2)

    for options in ({}, {"optimizer": pyro.optim.Adam({"lr": 0.1})}):
        seen: list[int] = []
        pyro.clear_param_store()
        fit(ExpectedReturn(), late, steps=20, **options)
        assert pyro.param("b").item() > 0


class Recording(torch.optim.SGD):
    """Knows the gradients of its latest step."""

    gradients: dict[int, Tensor]

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        leaves = [leaf for group in self.param_groups for leaf in group["params"]]
        Recording.gradients = {id(leaf): leaf.grad.clone() for leaf in leaves}
        return loss


def shared_trunk() -> tuple[ExpectedReturn, Callable[[], object], torch.nn.Linear, torch.nn.Linear]:
    """Policy and critic share their first layer."""
    torch.manual_seed(0)
    trunk, head, value = torch.nn.Linear(2, 4), torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    mean, critic = torch.nn.Sequential(trunk, head), torch.nn.Sequential(trunk, value)
    objective = ExpectedReturn(ScoreFunction(ppgrad.Critic(critic)))

    def program() -> None:
        with pyro.plate("episodes", 8):
            pyro.module("mean", mean)
            state = torch.ones(8, 2)
            action = ppgrad.policy("a", dist.Normal(mean(state).squeeze(-1), 1.0), context=state)
            ppgrad.reward("r", -(action**2))

    return objective, program, trunk, head


@pytest.mark.parametrize("compile", [False, "eager"])
def test_a_tensor_with_two_owners_moves_once(compile: bool | str) -> None:
    objective, program, trunk, head = shared_trunk()
    objective.compile = compile
    before = [layer.weight.detach().clone() for layer in (trunk, head)]
    fit(objective, program, steps=1, optimizer=Recording, learning_rate=0.5)
    for layer, start in zip((trunk, head), before, strict=True):
        gradient = Recording.gradients[id(layer.weight)]
        torch.testing.assert_close(start - layer.weight.detach(), 0.5 * gradient)
        assert gradient.any()


def test_a_tensor_with_two_names_is_one_parameter() -> None:
    def model() -> None:
        pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    guide = AutoIAFNormal(model)
    found = ppgrad.gradient(ppgrad.ELBO(), model, guide, seed=0)  # creates its parameters, and takes them back
    guide()
    leaves = [leaf for leaf in guide.parameters() if leaf.requires_grad]
    assert len(ppgrad.gradient(ppgrad.ELBO(), model, guide, seed=0)) == len(leaves) == len(found)
    before = [leaf.detach().clone() for leaf in leaves]
    fit(ppgrad.ELBO(), model, guide, steps=1, optimizer=Recording, learning_rate=0.5)
    for leaf, start in zip(leaves, before, strict=True):
        torch.testing.assert_close(start - leaf.detach(), 0.5 * Recording.gradients[id(leaf)])
