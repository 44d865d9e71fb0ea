"""Compiled gradients: as distributed as the others, anew where something changes, refused where they would be wrong."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    ELBO,
    DisARM,
    ExpectedReturn,
    InvalidInput,
    LeaveOneOut,
    MovingAverage,
    Pathwise,
    ScoreFunction,
)
from ppgrad.core.generators import generator_state
from ppgrad.engine.compiling import compiled
from ppgrad.engine.compiling.noise import Kind, drawing_up_front
from ppgrad.testing import SUITE_FAILURE_RATE, check_mean, conformance_cases

TRACED = "eager"
"""A backend that runs the traced graph as it is: all but the C++ compiler's part, in a second."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def program(x: float = 1.0) -> None:
    loc = pyro.param("loc", torch.tensor(0.5))
    z = ppgrad.policy("z", dist.Normal(loc, 1.0))
    ppgrad.cost("f", x * (z - 1.0) ** 2)


REFUSED = ("sequential_elbo", "sequential_plate", "nested_loops", "gamma", "gamma_rate", "poisson", "binomial")
"""Problems with a sequential plate, which reads its indices, or with noise that cannot be drawn up front."""

CASES = [case for case in conformance_cases() if case.name not in REFUSED]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_mean_of_traced_gradients(part: int) -> None:
    """One problem for each example of each estimator; with the noise drawn up front."""
    chosen = {repr(case.estimator): case for case in random.Random(0).sample(CASES, len(CASES))}
    for case in list(chosen.values())[part::8]:
        torch._dynamo.reset()
        check_mean(replace(case, compile=TRACED), SUITE_FAILURE_RATE / (8 * len(chosen)), replicates=4_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "problem"),
    [(ScoreFunction(LeaveOneOut()), "episodes"), (Pathwise(), "normal_chain"), (DisARM(), "bernoulli_chain")],
    ids=str,
)
def test_mean_of_compiled_gradients(estimator: ppgrad.Estimator, problem: str) -> None:
    case = next(case for case in CASES if repr(case.estimator) == repr(estimator) and case.name == problem)
    check_mean(replace(case, compile=True), SUITE_FAILURE_RATE / 100)


LAWS: list[dist.TorchDistribution] = [
    dist.Normal(0.3, 2.0),
    dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 2.0]])),
    dist.Uniform(-1.0, 2.0),
    dist.Exponential(3.0),
    dist.Laplace(1.0, 0.5),
    dist.Gumbel(0.0, 2.0),
    dist.LogNormal(0.1, 0.4),
    dist.HalfCauchy(2.0),
    dist.Geometric(torch.tensor(0.3)),
    dist.Bernoulli(torch.tensor(0.2)),
    dist.Categorical(torch.tensor([0.2, 0.0, 0.5, 0.3])),
    dist.OneHotCategorical(torch.tensor([0.2, 0.5, 0.3])),
    dist.RelaxedBernoulli(torch.tensor(0.5), torch.tensor(0.3)),
]


@pytest.mark.parametrize("fn", LAWS, ids=lambda fn: type(fn).__name__)
def test_noise_up_front_has_the_law_of_torchs_own(fn: dist.TorchDistribution) -> None:
    from scipy.stats import ks_2samp

    kinds = [Kind(law, torch.float32, torch.device("cpu")) for law in ("normal", "uniform")]
    torch.manual_seed(0)
    own = fn.sample((20_000,))
    with drawing_up_front({kind: kind.draw(200_000) for kind in kinds}) as noise:
        served = fn.sample((20_000,))
    assert sum(noise.counts().values()) >= 20_000
    assert served.dtype == own.dtype
    assert served.shape == own.shape
    for one, other in zip(own.reshape(20_000, -1).T, served.reshape(20_000, -1).T, strict=True):
        assert ks_2samp(one.numpy(), other.numpy()).pvalue > SUITE_FAILURE_RATE / 100


def test_the_same_noise_again_from_a_remembered_position() -> None:
    kind = Kind("normal", torch.float32, torch.device("cpu"))
    with drawing_up_front({kind: kind.draw(10)}) as noise:
        start = generator_state()
        first = torch.randn(4)
        end = noise.position()
        noise.go_back(start)
        assert torch.equal(torch.randn(4), first)
        noise.go_back(end)
        assert not torch.equal(torch.randn(4), first)
        assert noise.counts() == {kind: 8}


def test_a_seed_gives_one_gradient_and_another_seed_another() -> None:
    objective = ExpectedReturn(ScoreFunction(), compile=TRACED)
    one, same, other = (ppgrad.gradient(objective, program, seed=seed)["loc"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len(objective.graphs) == 1


def test_gradient_moves_no_generator_and_no_memory() -> None:
    objective = ExpectedReturn(ScoreFunction(MovingAverage()), compile=TRACED)
    state = torch.get_rng_state()
    ppgrad.gradient(objective, program, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not objective.memory


def test_loss_and_both_ways_to_its_gradient_agree() -> None:
    objective = ExpectedReturn(Pathwise(), num_particles=3, compile=TRACED)
    pyro.set_rng_seed(3)
    loss = objective.loss(program, None)
    pyro.set_rng_seed(3)
    surrogate = objective.differentiable_loss(program, None)
    (gradient,) = torch.autograd.grad(surrogate, [pyro.get_param_store()._params["loc"]])
    pyro.set_rng_seed(3)
    assert objective.loss_and_grads(program, None) == pytest.approx(loss)
    assert surrogate.item() == pytest.approx(loss)
    assert pyro.get_param_store()._params["loc"].grad == pytest.approx(gradient)


def test_one_graph_serves_every_value_of_parameters_data_and_memory() -> None:
    objective = ExpectedReturn(ScoreFunction(MovingAverage()), compile=TRACED)

    def scaled(x: Tensor) -> None:
        program(x)

    for step in range(4):
        objective.loss_and_grads(scaled, None, torch.tensor(float(step)))
    assert float(objective.memory["z"]["count"]) == 4
    assert len(objective.graphs) == 2  # before there was an average, and since


def test_a_tensor_argument_is_read_at_every_call() -> None:
    objective = ExpectedReturn(Pathwise(), compile=TRACED)

    def scaled(x: Tensor) -> None:
        program(x)

    one, two = (ppgrad.gradient(objective, scaled, args=(torch.tensor(x),), seed=0)["loc"] for x in (1.0, 2.0))
    assert two == pytest.approx(2 * one)


@pytest.mark.parametrize("where", ["argument", "closure", "keyword"])
def test_another_number_compiles_anew(where: str) -> None:
    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    factor = 1.0

    def closed() -> None:
        program(factor)

    def gradient() -> Tensor:
        arguments: dict[str, Any] = {"argument": {"args": (factor,)}, "keyword": {"kwargs": {"x": factor}}}.get(
            where, {}
        )
        return ppgrad.gradient(objective, closed if where == "closure" else program, **arguments, seed=0)["loc"]

    one = gradient()
    factor = 2.0
    assert gradient() == pytest.approx(2 * one)


def test_a_number_that_goes_on_changing_is_pointed_at(caplog: pytest.LogCaptureFixture) -> None:
    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    for step in range(9):
        ppgrad.gradient(objective, program, args=(float(step),), seed=0)
    assert sum("has been compiled 8 times" in record.message for record in caplog.records) == 1


def test_another_shape_compiles_anew() -> None:
    objective = ExpectedReturn(Pathwise(), compile=TRACED)

    def batch(x: Tensor) -> None:
        program(x.sum())

    for size in (2, 3):
        found = ppgrad.gradient(objective, batch, args=(torch.ones(size),), seed=0)["loc"]
        assert found == pytest.approx(size * ppgrad.gradient(objective, program, seed=0)["loc"])


def test_a_held_tensor_that_changes_in_place_is_read_anew() -> None:
    factor = torch.tensor(1.0)
    objective = ExpectedReturn(Pathwise(), compile=TRACED)

    def held() -> None:
        program(factor)

    one = ppgrad.gradient(objective, held, seed=0)["loc"]
    factor.fill_(2.0)
    assert ppgrad.gradient(objective, held, seed=0)["loc"] == pytest.approx(2 * one)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self) -> None:
        mean = self.layers(torch.ones(1))[0]
        ppgrad.cost("f", ppgrad.policy("z", dist.Normal(mean, 1.0)) ** 2)


def test_a_module_in_another_mode_compiles_anew() -> None:
    model = Dropping()
    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    training = ppgrad.gradient(objective, model, seed=0)
    model.eval()
    evaluating = ppgrad.gradient(objective, model, seed=0)
    assert not any(torch.equal(training[name], evaluating[name]) for name in training)
    eager = ppgrad.gradient(ExpectedReturn(Pathwise()), model, seed=0)
    assert set(evaluating) == set(eager)


def test_critics_and_moving_averages_learn_as_they_do_uncompiled() -> None:
    def learned(compile: bool | str) -> tuple[float, float]:
        pyro.clear_param_store()
        torch.manual_seed(0)
        critic = nn.Linear(1, 1)
        baseline = ppgrad.Critic(critic)

        def contextual() -> None:
            loc = pyro.param("loc", torch.tensor(0.5))
            z = ppgrad.policy("z", dist.Normal(loc, 1.0), context=torch.ones(1))
            ppgrad.cost("f", (z - 1.0) ** 2)

        svi = pyro.infer.SVI(
            contextual, None, pyro.optim.SGD({"lr": 0.01}),
            ExpectedReturn(ScoreFunction(baseline), num_particles=64, compile=compile),
        )  # fmt: skip
        for _ in range(300):
            svi.step()
        return pyro.param("loc").item(), critic(torch.ones(1)).item()

    for loc, value in (learned(False), learned(TRACED)):
        assert abs(loc - 1) < 0.2
        assert abs(value + 1) < 0.3  # a return of −1 at the optimum


def test_fit_reports_rewards_of_a_compiled_program() -> None:
    def rewarded() -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        with pyro.plate("episodes", 4):
            for t in pyro.markov(range(3)):
                z = ppgrad.policy(f"z_{t}", dist.Normal(loc, 1e-3))
                ppgrad.reward(f"r_{t}", -((z - 2.0) ** 2))

    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    history = ppgrad.fit(objective, rewarded, steps=20, learning_rate=0.1, progress=False)
    assert history.metrics["rollout/ep_rew_mean"].iloc[0] == pytest.approx(-3 * 1.5**2, abs=0.1)


def test_compiling_is_logged_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ppgrad"):
        ppgrad.gradient(ExpectedReturn(Pathwise(), compile=TRACED), program, seed=0)
    assert any("Compiled step of program" in record.message and " s" in record.message for record in caplog.records)


def branching() -> None:
    z = ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))
    ppgrad.cost("f", z**2 if z > 0 else -z)


def from_numpy() -> None:
    z = ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))
    ppgrad.cost("f", torch.as_tensor(np.square(z.detach().numpy())))


def random_numpy() -> None:
    z = ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))
    ppgrad.cost("f", z * float(np.random.randn()))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self) -> None:
        with pyro.plate("batch", 4):
            z = ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))
            ppgrad.cost("f", self.norm(z.unsqueeze(-1)).squeeze(-1))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (branching, "after site 'z' depends on a value"),
        (from_numpy, "after site 'z' depends on a value, or leaves torch"),
        (random_numpy, "draws from NumPy's generator"),
        (Counting(), "changes a tensor that it holds in place"),
    ],
    ids=["branching", "numpy", "numpy generator", "batch norm"],
)
def test_programs_that_a_graph_would_get_wrong_are_refused(model: Callable[[], None], says: str) -> None:
    with pytest.raises(ppgrad.Unsupported, match=says) as raised:
        ppgrad.gradient(ExpectedReturn(ScoreFunction(), compile=TRACED), model, seed=0)
    assert "compile=False" in str(raised.value)


def test_a_numpy_argument_is_refused() -> None:
    def scaled(x: Any) -> None:
        program(torch.as_tensor(x))

    with pytest.raises(ppgrad.InvalidInput, match="NumPy"):
        ppgrad.gradient(ExpectedReturn(Pathwise(), compile=TRACED), scaled, args=(np.ones(()),), seed=0)


def test_noise_that_cannot_be_drawn_up_front_is_not_reused() -> None:
    def counts() -> None:
        rate = pyro.param("rate", torch.tensor(2.0))
        n = ppgrad.policy("n", dist.Poisson(rate))
        k = ppgrad.policy("k", dist.Bernoulli(torch.sigmoid(rate)))
        ppgrad.cost("f", n * k)

    sites = {"n": ScoreFunction(), "k": DisARM()}
    with pytest.raises(ppgrad.Unsupported, match="poisson cannot be drawn up front"):
        ppgrad.gradient(ExpectedReturn(sites=sites, compile=TRACED), counts, seed=0)
    ppgrad.gradient(ExpectedReturn(ScoreFunction(), compile=TRACED), counts, seed=0)


def test_a_number_that_is_not_finite_names_its_site() -> None:
    def unlucky(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        ppgrad.cost("f", ppgrad.policy("z", dist.Normal(loc, 1.0)) * torch.log(x))

    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    ppgrad.gradient(objective, unlucky, args=(torch.tensor(1.0),), seed=0)
    with pytest.raises(ppgrad.NonFinite, match="'f'"):
        ppgrad.gradient(objective, unlucky, args=(torch.tensor(-1.0),), seed=0)


def test_without_a_compiler_it_runs_as_it_is_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(config, "force_disable_caches", True)
    monkeypatch.setattr(compiled, "_without_compiler", set())
    objective = ExpectedReturn(ScoreFunction(), compile=True)
    with pytest.warns(ppgrad.NoCompiler, match="No C\\+\\+ compiler"):
        one = ppgrad.gradient(objective, program, seed=0)
    assert torch.equal(one["loc"], ppgrad.gradient(objective, program, seed=0)["loc"])
    assert torch.equal(one["loc"], ppgrad.gradient(ExpectedReturn(ScoreFunction()), program, seed=0)["loc"])


def test_replicates_of_the_elbo() -> None:
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))

    objective = ELBO(Pathwise(), compile=TRACED)
    found = ppgrad.measure(objective, model, guide, (torch.tensor(2.0),), replicates=501, chunk_size=100)
    assert found.draws["loc"].shape == (501,)
    assert float(found.p_value["loc"]) > SUITE_FAILURE_RATE


@pytest.mark.parametrize("wrong", ["nonsense", 1, None], ids=repr)
def test_what_is_no_backend_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput, match="list_backends"):
        ExpectedReturn(compile=wrong)


def test_hooks_of_the_parameters_are_called() -> None:
    weight = torch.ones((), requires_grad=True)
    seen: list[str] = []
    weight.register_hook(lambda _: seen.append("gradient"))
    weight.register_post_accumulate_grad_hook(lambda _: seen.append("accumulated"))

    def program(weight: torch.Tensor) -> None:
        ppgrad.reward("r", weight * ppgrad.policy("x", dist.Normal(torch.ones(()), 1.0)))

    objective = ExpectedReturn(Pathwise(), compile="aot_eager")
    for _ in range(2):
        objective.loss_and_grads(program, None, weight)
    assert seen == ["gradient", "accumulated"] * 2
