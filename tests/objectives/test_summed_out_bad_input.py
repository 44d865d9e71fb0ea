"""Programs whose sites cannot be summed out, or not as they are written: each error names the site and the mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

import ppgrad
from ppgrad import (
    ELBO,
    InvalidAssignment,
    InvalidProgram,
    NonFinite,
    PpgradError,
    ScoreFunction,
    Unsupported,
)
from ppgrad.engine.running.enumerating import PlatesUnknown
from ppgrad.testing.problems import parameters
from tests.objectives.summed_out_programs import DATA, PARALLEL, no_guide

WRITTEN: dict[str, tuple[Callable[[], None], type[Exception], str]] = {}


def written(error: type[Exception], match: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def note(model: Callable[[], None]) -> Callable[[], None]:
        WRITTEN[model.__name__] = model, error, match
        return model

    return note


def coin(name: str = "z", **infer: Any) -> Tensor:
    logits = parameters({"l": 0.3})["l"]
    value: Tensor = pyro.sample(name, dist.Bernoulli(logits=logits), infer={**PARALLEL, **infer})
    return value


def seen(mean: Any, name: str = "x") -> None:
    pyro.sample(name, dist.Normal(mean, 1.0), obs=DATA[0])


@written(InvalidProgram, r"'z' is summed out.*Python number.*z\.item\(\).*Vindex")
def item() -> None:
    z = coin()
    seen(z.item())


@written(InvalidProgram, r"'z' is summed out.*Python number.*if z else")
def branch() -> None:
    z = coin()
    seen(1.0 if z else 0.0)


@written(InvalidProgram, r"'z' is summed out.*Python number.*\.any\(\)")
def branch_on_any() -> None:
    z = coin()
    seen(1.0 if (z == 1).any() else 0.0)


@written(InvalidProgram, r"'z' is summed out.*Python number.*\[int\(z\)\]")
def index_of_a_list() -> None:
    z = coin()
    seen([0.0, 1.0][int(z)])


@written(InvalidProgram, r"'z' is summed out.*Python number.*numpy")
def numpy() -> None:
    z = coin()
    seen(torch.as_tensor(z.numpy() + 1.0))


@written(InvalidProgram, r"'x' was computed from the summed-out site 'z'.*a mean.*dimension -1.*draw 'z'")
def mean() -> None:
    seen(coin().mean())


@written(InvalidProgram, r"'x' was computed from the summed-out site 'z'.*dimension -2")
def out_of_its_plate() -> None:
    with pyro.plate("n", 3):
        z = coin()
    seen(z.sum(-1))


@written(InvalidProgram, r"'z' stand side by side.*Vindex")
def shaped_for_one_value() -> None:
    z = coin()
    with pyro.plate("n", 4):
        pyro.sample("x", dist.Normal(torch.cat([z.reshape(1), DATA[:3]]), 1.0), obs=DATA)


@written(InvalidProgram, r"'z_2' depends on the summed-out site 'z_0'.*left behind.*history=")
def too_short_a_history() -> None:
    z = before = torch.tensor(0)
    steps = parameters({"t": torch.zeros(2, 2, 2)})["t"]
    for t in pyro.markov(range(4)):
        fn = dist.Categorical(logits=Vindex(steps)[before, z])
        z, before = pyro.sample(f"z_{t}", fn, infer=PARALLEL), z
        seen(z.float(), f"x_{t}")


@written(InvalidProgram, r"'z_48' is summed out beside 48 others.*pyro.markov")
def too_many_without_markov() -> None:
    for t in range(60):
        seen(coin(f"z_{t}"), f"x_{t}")


@written(InvalidProgram, r"'x' stands in the plates 'm' and 'n'.*\('y', 'z'\).*sequential")
def crossed_plates() -> None:
    n, m = pyro.plate("n", 4, dim=-1), pyro.plate("m", 3, dim=-2)
    with n:
        y = coin("y")
    with m:
        z = coin("z")
    with n, m:
        pyro.sample("x", dist.Normal(y + z, 1.0), obs=torch.zeros(3, 4))


@written(Unsupported, r"'z' is marked.*Normal has no finite support.*Remove the mark")
def no_finite_support() -> None:
    seen(pyro.sample("z", dist.Normal(0.0, 1.0), infer=PARALLEL))


@written(Unsupported, r"'z' is marked.*one event of several elements.*plate in place of .to_event")
def several_elements() -> None:
    z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.3)).to_event(1), infer=PARALLEL)
    seen(z.sum(-1))


@written(Unsupported, r"'z' is marked.*different supports")
def different_supports() -> None:
    with pyro.plate("n", 2):
        pyro.sample("z", dist.Binomial(torch.tensor([1.0, 2.0]), torch.tensor([0.3, 0.4])), infer=PARALLEL)


@written(Unsupported, r"'z' and 'x' have different scales.*same subsampled plate")
def scales_that_differ() -> None:
    z = coin()
    with pyro.plate("n", 40, subsample=torch.arange(4)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=DATA)


@written(Unsupported, r"'z' has a scale with dimensions.*one number")
def a_scale_with_dimensions() -> None:
    with pyro.plate("n", 4), pyro.poutine.scale(scale=torch.ones(4)):
        z = coin()
        pyro.sample("x", dist.Normal(z, 1.0), obs=DATA)


@written(InvalidAssignment, r"'z'.*'paralell'.*'parallel' or 'sequential'")
def a_word_misspelt() -> None:
    seen(coin(enumerate="paralell"))


@written(InvalidAssignment, r"'z'.*num_samples.*num_particles=3")
def tensor_monte_carlo() -> None:
    seen(coin(num_samples=3))


@written(NonFinite, r"'x' parameter 'loc' of Normal is nan")
def not_finite() -> None:
    seen(torch.log(coin() - 1.0))


@written(Unsupported, r"'z' a probability of Categorical is exactly 0.*logits=")
def a_probability_that_moves_from_zero() -> None:
    p = parameters({"p": [0.0, 1.0]})["p"]
    seen(pyro.sample("z", dist.Categorical(probs=p), infer=PARALLEL).float())


@pytest.mark.parametrize("options", [{}, {"max_plate_nesting": 2}, {"num_particles": 2}], ids=str)
@pytest.mark.parametrize("name", WRITTEN)
def test_programs(name: str, options: dict[str, int]) -> None:
    model, error, match = WRITTEN[name]
    if "max_plate_nesting" in options:
        match = match.replace("dimension -1", "dimension -3").replace("dimension -2", "dimension -3")
    with pytest.raises(error, match=f"(?s){match}"):
        ELBO(**options).loss_and_grads(model, no_guide)


def in_a_plate() -> None:
    with pyro.plate("n", 4):
        pyro.sample("x", dist.Normal(coin(), 1.0), obs=DATA)


def before_a_plate() -> None:
    z = coin()
    with pyro.plate("n", 4):
        pyro.sample("x", dist.Normal(z, 1.0), obs=DATA)


@pytest.mark.parametrize("model", [in_a_plate, before_a_plate])
def test_a_plate_outside_of_max_plate_nesting(model: Callable[[], None]) -> None:
    with pytest.raises(InvalidProgram, match=r"'z'.*max_plate_nesting=0.*Write max_plate_nesting=1"):
        ELBO(max_plate_nesting=0).loss(model, no_guide)


def draws_z() -> None:
    pyro.sample("z", dist.Bernoulli(logits=parameters({"q": 0.2})["q"]))


def marked() -> None:
    seen(coin())


def test_a_site_that_the_guide_also_draws() -> None:
    with pytest.raises(InvalidProgram, match=r"'z' of the model.*the guide draws it.*leave it out of the guide"):
        ELBO().loss(marked, draws_z)


def test_a_site_that_the_guide_draws_as_one_says() -> None:
    ELBO(sites={"z": ScoreFunction()}).loss(marked, draws_z)
    ELBO().loss(marked, pyro.infer.config_enumerate(draws_z))


def test_an_estimator_for_a_site_that_none_serves() -> None:
    with pytest.raises(InvalidAssignment, match=r"'z'.*matches no random site"):
        ELBO(sites={"z": ScoreFunction()}).loss(marked, no_guide)


def test_what_is_only_for_the_engine_does_not_get_out() -> None:
    assert not issubclass(PlatesUnknown, PpgradError)
    deep = 1

    def model() -> None:
        with pyro.plate_stack("p", [2] * deep):
            z = pyro.sample("z", dist.Bernoulli(0.3), infer=PARALLEL)
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros([2] * deep))

    objective = ELBO(num_particles=2)
    one = objective.loss(model, no_guide)
    for deep in (2, 4, 1):
        assert objective.loss(model, no_guide) == pytest.approx(one * 2 ** (deep - 1), rel=1e-5)
        assert ppgrad.gradient(objective, model, no_guide) == {}
