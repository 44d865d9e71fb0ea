"""REBAR differentiates the relaxed program: one whose cost jumps between the values of a site is refused."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import ELBO, REBAR, ExpectedReturn, GumbelSoftmax, ScoreFunction, Unsupported
from ppgrad.testing.problems import parameters

Cost = Callable[[Tensor], Tensor]


def program(cost: Cost, one_hot: bool = False) -> Callable[[], None]:
    def model() -> None:
        if one_hot:
            fn = dist.OneHotCategorical(logits=parameters({"w": [0.3, -0.5, 0.4]})["w"])
        else:
            fn = dist.Bernoulli(logits=parameters({"w": [0.3, -0.5, 0.4]})["w"]).to_event(1)
        ppgrad.cost("f", cost(ppgrad.policy("z", fn)))

    return model


JUMPS: dict[str, Cost] = {
    "threshold": lambda z: torch.where(z > 0.5, 3.0, 1.0).sum() + 0.1 * z.sum(),
    "threshold elsewhere": lambda z: torch.where(z[0] > 0.83, 1.1, 1.0) + z.sum() ** 2,
    "round": lambda z: (z.round() * z).sum(),
    "straight through": lambda z: ((z.round() + z - z.detach()) ** 2).sum(),
    "branch of Python": lambda z: z.sum() ** 2 if z[1] > 0.5 else 2 * z.sum(),
    "sum of elements": lambda z: (z.sum() > 1.5) * 1.0 + z.sum(),
    "beside large costs": lambda z: 1e3 + torch.where(z[0] > 0.5, 0.5, 0.0) + 0.1 * z.sum(),
    "argmax": lambda z: torch.tensor([1.0, 2.0, 4.0]).index_select(0, z.argmax().reshape(1)).sum() + z[0],
}

CONTINUOUS: dict[str, Cost] = {
    "kinks": lambda z: (z - 0.4).abs().sum() + torch.relu(z - 0.7).sum() + z.max(),
    "stiff ramp": lambda z: ((z - 0.5) / 2e-4).clamp(0, 1).sum(),
    "steep": lambda z: torch.sigmoid(300 * (z - 0.37)).sum() + torch.exp(5 * z).sum(),
    "waves": lambda z: torch.sin(40 * z).sum(),
    "large": lambda z: 1e6 + z.sum(),
    "sums of large numbers": lambda z: ((z.sum() - torch.linspace(-30, 30, 10_000)) ** 2).sum(),
    "constant": lambda z: 0.0 * z.sum() + 2.0,
    "at the ends alone": lambda z: torch.where(z == 1, 3.0, 1.0).sum() + 0.1 * z.sum(),
}


@pytest.mark.parametrize(
    ("name", "one_hot"),
    [(n, h) for n in JUMPS for h in (False, True) if (n, h) not in (("sum of elements", True), ("argmax", False))],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_cost_that_jumps_is_refused(name: str, one_hot: bool, seed: int) -> None:
    with pytest.raises(Unsupported, match=r"REBAR at site 'z'.*jumps(.|\n)*LocalExpectation\(\)"):
        ppgrad.gradient(ExpectedReturn(REBAR()), program(JUMPS[name], one_hot), seed=seed)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("seed", range(3))
def test_a_continuous_cost_is_not(name: str, one_hot: bool, seed: int) -> None:
    ppgrad.gradient(ExpectedReturn(REBAR()), program(CONTINUOUS[name], one_hot), seed=seed)


def test_it_would_be_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    """z crosses the threshold as its logit moves and z̃ never does, so that the two slopes do not make up."""

    def threshold() -> None:
        z = ppgrad.policy("z", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        ppgrad.cost("f", torch.where(z > 0.5, 3.0, 1.0) + 0.1 * z)

    with pytest.raises(Unsupported, match="jumps"):
        ppgrad.gradient(ExpectedReturn(REBAR()), threshold)
    ppgrad.gradient(ExpectedReturn(GumbelSoftmax()), threshold)  # biased, and it says so
    monkeypatch.setattr("ppgrad.engine.checking.first_run.check_continuous", lambda *_: None)
    unchecked = ppgrad.measure(ExpectedReturn(REBAR()), threshold, replicates=5000)
    assert unchecked.reference_kind == "exact"
    assert float(unchecked.p_value["logit"]) < 1e-10


def test_later_draws_are_held_and_their_densities_looked_at() -> None:
    """A later Bernoulli flips where its noise crosses its chance, which is no jump; a chance that jumps is one."""

    def chain(threshold: bool) -> None:
        z = ppgrad.policy("z", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        logit = torch.where(z > 0.5, 2.0, -1.0) + 0.1 * z if threshold else 3 * z - 1
        b = ppgrad.policy("b", dist.Bernoulli(logits=logit))
        g = ppgrad.policy("g", dist.Gamma(1 + b, 1.0 + z))
        ppgrad.cost("f", (b - 0.2 * z) ** 2 + g * z)

    objective = ExpectedReturn(ScoreFunction(), sites={"z": REBAR()})
    for seed in range(5):
        ppgrad.gradient(objective, chain, args=(False,), seed=seed)
        with pytest.raises(Unsupported, match="jumps"):
            ppgrad.gradient(ExpectedReturn(ScoreFunction(), sites={"z": REBAR()}), chain, args=(True,), seed=seed)


def test_in_a_bound_with_a_subsampled_plate() -> None:
    def model(threshold: bool) -> None:
        with pyro.plate("n", 4, subsample_size=2) as i:
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.4)))
            location = torch.where(z > 0.5, 1.0, 0.0) if threshold else z
            pyro.sample("x", dist.Normal(location, 1.0), obs=torch.tensor([0.5, -1.0, 2.0, 1.0])[i])

    def guide(threshold: bool) -> None:
        logits = parameters({"logits": [0.2, -0.4, 0.6, 0.1]})["logits"]
        with pyro.plate("n", 4, subsample_size=2) as i:
            pyro.sample("z", dist.Bernoulli(logits=logits[i]))

    ppgrad.gradient(ELBO(REBAR()), model, guide, args=(False,), seed=0)
    with pytest.raises(Unsupported, match="jumps"):
        ppgrad.gradient(ELBO(REBAR()), model, guide, args=(True,), seed=0)
