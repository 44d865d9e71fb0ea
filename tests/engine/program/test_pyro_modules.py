"""What Pyro registers of modules: as often as it likes, under vmap, and without its param store."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import nn

import ppgrad
from ppgrad import ELBO, ExpectedReturn, ScoreFunction

tensor = torch.tensor


class Owner(nn.Module):
    """A module whose methods register it, as in Pyro's tutorials."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(1, 1), nn.Linear(1, 1)

    def model(self, x):
        pyro.module("owner", self)
        z = pyro.sample("z", dist.Bernoulli(0.5).expand([1]).to_event(1))
        pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("owner", self)
        pyro.sample("z", dist.Bernoulli(logits=self.encoder(x)).to_event(1))


def closed_over():
    net = nn.Linear(1, 1)

    def program():
        pyro.module("net", net)
        ppgrad.reward("r", ppgrad.policy("x", dist.Normal(net(torch.ones(1)).squeeze(), 1.0)))

    return ExpectedReturn(ScoreFunction(), num_particles=4), program, None, ()


def owned():
    owner = Owner()
    return ELBO(ScoreFunction(), num_particles=4), owner.model, owner.guide, (torch.ones(1),)


def two_of_them():
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)

    def program(scale):
        pyro.module("first", first), pyro.module("second", second)
        mean = second(first(torch.ones(1))).squeeze()
        ppgrad.reward("r", ppgrad.policy("x", dist.Normal(mean, scale)))

    return ExpectedReturn(ScoreFunction(), num_particles=4), program, None, (tensor(0.5),)


@pytest.mark.parametrize("build", [closed_over, owned, two_of_them])
def test_a_program_with_modules_stays_under_vmap(build, caplog):
    objective, model, guide, args = build()
    found = [ppgrad.measure(objective, model, guide, args, replicates=20) for _ in range(3)]
    ppgrad.gradient(objective, model, guide, args, seed=0)
    found.append(ppgrad.measure(objective, model, guide, args, replicates=20))
    assert "loop" not in caplog.text
    for name, mean in found[0].mean.items():
        assert all(torch.equal(mean, other.mean[name]) for other in found)
    assert objective.prepare(model, guide, args).executor.vectorize


@pytest.mark.parametrize("build", [closed_over, owned, two_of_them])
def test_a_lanes_own_parameters_are_no_warning(build):
    objective, model, guide, args = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ppgrad.measure(objective, model, guide, args, replicates=20)
        ppgrad.compare({"a": objective}, model, guide, args, replicates=20)


def test_a_frozen_parameter_is_one():
    net = nn.Linear(1, 1)
    net.bias.requires_grad_(False)

    def program():
        pyro.module("net", net)
        ppgrad.reward("r", ppgrad.policy("x", dist.Normal(net(torch.ones(1)).squeeze(), 1.0)))

    with pytest.warns(UserWarning, match="bias was not registered"):
        ppgrad.gradient(ExpectedReturn(), program, seed=0)


class Local(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(tensor(0.0))
        self.scale = PyroParam(tensor(1.0), dist.constraints.positive)

    def forward(self):
        ppgrad.cost("c", (ppgrad.policy("x", dist.Normal(self.loc, self.scale)) - 1.0) ** 2)


@pytest.mark.parametrize("way", ["fit", "ELBOModule"])
def test_parameters_that_live_in_their_modules(way):
    with pyro.settings.context(module_local_params=True):
        program = Local()
        assert set(ppgrad.gradient(ExpectedReturn(), program, seed=0)) == {"loc", "scale"}
        before = program.loc.item()
        if way == "fit":
            ppgrad.fit(ExpectedReturn(), program, steps=3, learning_rate=0.1, progress=False)
        else:
            bound = ExpectedReturn()(program)  # Pyro's SVI cannot, whatever the objective
            bound().backward()
            torch.optim.Adam(bound.parameters(), lr=0.1).step()
        assert program.loc.item() != before
