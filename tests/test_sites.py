"""The words of a program refuse what is no site."""

import pyro.distributions as dist
import pytest
import torch
import torch.distributions as td

import ppgrad
from ppgrad import ExpectedReturn, InvalidInput, InvalidProgram, RenyiELBO

tensor = torch.tensor


@pytest.mark.parametrize(
    ("fn", "there"),
    [
        (td.Gamma(1.0, 1.0), "pyro.distributions.Gamma"),
        (td.Categorical(torch.ones(3)), "pyro.distributions.Categorical"),
        (td.Independent(td.Normal(torch.zeros(2), 1.0), 1), "pyro.distributions.Independent"),
        (td.MultivariateNormal(torch.zeros(2), torch.eye(2)), "pyro.distributions.MultivariateNormal"),
        (type("Mine", (td.Normal,), {})(0.0, 1.0), "TorchDistribution"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_distribution_of_torch_is_refused_by_name(fn, there):
    def program():
        ppgrad.cost("c", ppgrad.policy("x", fn).sum())

    with pytest.raises(InvalidProgram, match=f"'x'.*{there}"):
        ppgrad.gradient(ExpectedReturn(), program, seed=0)
    with pytest.raises(InvalidProgram, match="'x'"):
        program()  # alone, too


@pytest.mark.parametrize("name", ["", None, 3])
@pytest.mark.parametrize("word", ["policy", "reward", "cost"])
def test_a_site_has_a_name(name, word):
    value = dist.Normal(0.0, 1.0) if word == "policy" else 1.0
    with pytest.raises(InvalidProgram, match=r"name.*'x'"):
        getattr(ppgrad, word)(name, value)


def test_a_renyi_bounds_samples_go_by_one_name():
    with pytest.raises(InvalidInput, match="num_importance=5"):
        RenyiELBO(num_particles=5)
    with pytest.raises(InvalidInput, match="num_importance=2"):
        RenyiELBO(ppgrad.ScoreFunction(), alpha=0.5, num_particles=2)
    assert RenyiELBO(num_particles=5, num_importance=3).sizes[:2] == (5, 3)
    assert RenyiELBO(num_importance=5).sizes[:2] == (1, 5)
