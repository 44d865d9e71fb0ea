"""Sites that are summed out of the model: exact where all are, and beside any estimator as if summed by hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam
from torch import Tensor

import ppgrad
from ppgrad import (
    ELBO,
    IWELBO,
    REBAR,
    VIMCO,
    DisARM,
    Divergence,
    DReG,
    Enumerate,
    GumbelSoftmax,
    LeaveOneOut,
    LocalExpectation,
    MeasureValued,
    MuProp,
    Objective,
    Pathwise,
    RenyiELBO,
    ReweightedWakeSleep,
    ScoreFunction,
    StickingTheLanding,
    VarGrad,
)
from ppgrad.analysis.statistics import describe
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters
from tests.objectives.summed_out_programs import DATA, MODELS, PARALLEL, no_guide


def loss_and_gradient(objective: pyro.infer.ELBO, model: Callable[[], None]) -> tuple[float, dict[str, Tensor]]:
    pyro.clear_param_store()
    loss = objective.loss_and_grads(model, no_guide)
    leaves = dict(pyro.get_param_store().named_parameters())
    return loss, {name: leaf.grad.clone() for name, leaf in leaves.items() if leaf.grad is not None}


def assert_like_pyro(objective: Objective, model: Callable[[], None]) -> None:
    loss, gradient = loss_and_gradient(objective, model)
    wanted, other = loss_and_gradient(TraceEnum_ELBO(), model)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert gradient.keys() == other.keys()
    for name, value in other.items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "options",
    [{}, {"num_particles": 3}, {"num_particles": 2, "vectorize_particles": False}],
    ids=["one", "vmap", "loop"],
)
def test_loss_and_gradient_are_pyros(name: str, options: dict[str, int], caplog: pytest.LogCaptureFixture) -> None:
    assert_like_pyro(ELBO(**options), MODELS[name])
    assert not [record for record in caplog.records if record.name == "ppgrad"], "it ran in a loop"


@pytest.mark.parametrize("name", ["mixture", "nested_plates", "a_chain_in_a_plate", "a_tree", "impossible_values"])
def test_compiled(name: str) -> None:
    assert_like_pyro(ELBO(compile="eager"), MODELS[name])


@pytest.mark.parametrize("nesting", [2, 5])
def test_plates_take_as_many_dimensions_as_one_says(nesting: int) -> None:
    assert_like_pyro(ELBO(max_plate_nesting=nesting), MODELS["nested_plates"])


@pytest.mark.parametrize("words", [{"enumerate": "sequential"}, PARALLEL, None])
def test_sequential_is_as_parallel(words: dict[str, str] | None) -> None:
    def model() -> None:
        loc = parameters({"loc": [-1.0, 1.0]})["loc"]
        with pyro.plate("n", 4):
            z = pyro.sample("z", dist.Bernoulli(0.3), infer=words)
            pyro.sample("x", dist.Normal(loc[z.long()], 1.0), obs=DATA)

    loss, _ = loss_and_gradient(ELBO(), model if words else config_enumerate(model))
    densities = dist.Normal(torch.tensor([[-1.0], [1.0]]), 1.0).log_prob(DATA)
    assert loss == pytest.approx(-(densities.exp() * torch.tensor([[0.7], [0.3]])).sum(0).log().sum().item())


def test_a_deeper_plate_that_a_later_run_meets() -> None:
    deep = False

    def model() -> None:
        loc = parameters({"loc": [-1.0, 1.0]})["loc"]
        with pyro.plate("m", 3, dim=-2) if deep else poutine.scale(scale=3.0), pyro.plate("n", 4, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(0.3), infer=PARALLEL)
            pyro.sample("x", dist.Normal(loc[z.long()], 1.0), obs=DATA)

    objective = ELBO()
    before = objective.loss(model, no_guide)
    deep = True
    assert objective.loss(model, no_guide) == pytest.approx(before, rel=1e-5)


def test_a_mask_of_the_distribution_does_not_make_every_value_sure() -> None:
    def model(mask: Tensor | None) -> None:
        with pyro.plate("n", 4):
            fn = dist.Bernoulli(torch.full((4,), 0.3))
            z = pyro.sample("z", fn if mask is None else fn.mask(mask), infer=PARALLEL)
            pyro.sample("x", dist.Normal(z, 1.0), obs=DATA)

    wanted = ELBO().loss(model, lambda _: None, None)
    assert ELBO().loss(model, lambda _: None, torch.tensor([True, False, True, False])) == pytest.approx(wanted)


# What is drawn beside a sum.


def drawn_beside(by_hand: bool) -> Callable[[], None]:
    def model() -> None:
        logits = parameters({"w": [0.1, 0.2]})["w"]
        switch = pyro.sample("switch", dist.Bernoulli(0.4))
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("n", 8, subsample=torch.arange(4)):
            b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.3)))
            u = pyro.sample("u", dist.Normal(0.0, 1.0))
            if by_hand:
                means = torch.stack([loc * z + switch - 0.5 * b * z + u for z in (0.0, 1.0)])
                densities = dist.Normal(means, 1.0).log_prob(DATA) + logits.log_softmax(-1).unsqueeze(-1)
                pyro.factor("x", densities.logsumexp(0))
            else:
                z = pyro.sample("z", dist.Categorical(logits=logits), infer=PARALLEL)
                pyro.sample("x", dist.Normal(loc * z + switch - 0.5 * b * z + u, 1.0), obs=DATA)

    return model


def guide() -> None:
    place = parameters({"p_s": 0.3, "p_l": 0.2, "p_b": [-1.0, -0.3, 0.3, 1.0], "p_u": [0.5, -0.5, 0.0, 0.2]})
    pyro.sample("switch", dist.Bernoulli(logits=place["p_s"]))
    pyro.sample("loc", dist.Normal(place["p_l"], 0.7))
    with pyro.plate("n", 8, subsample=torch.arange(4)):
        pyro.sample("b", dist.Bernoulli(logits=place["p_b"]))
        pyro.sample("u", dist.Normal(place["p_u"], 1.0))


BESIDE: dict[str, Callable[[], Objective]] = {
    "score": lambda: ELBO(ScoreFunction()),
    "leave one out": lambda: ELBO(ScoreFunction(LeaveOneOut()), num_particles=2),
    "disarm": lambda: ELBO(sites={"switch": DisARM(), "b": DisARM()}),
    "local expectation": lambda: ELBO(sites={"switch": LocalExpectation(), "b": LocalExpectation()}),
    "rebar beside a grid": lambda: ELBO(sites={"switch": REBAR(), "b": Enumerate()}),
    "muprop": lambda: ELBO(sites={"switch": MuProp()}),
    "measure-valued": lambda: ELBO(sites={"loc": MeasureValued()}),
    "relaxed": lambda: ELBO(sites={"b": GumbelSoftmax()}),
    "sticking the landing": lambda: ELBO(sites={"loc": StickingTheLanding()}),
    "closed divergences": lambda: ELBO(analytic_kl=True),
    "compiled": lambda: ELBO(compile="eager"),
    "in a loop": lambda: ELBO(num_particles=2, vectorize_particles=False),
    "variance": lambda: VarGrad(num_particles=3),
    "bound": lambda: IWELBO(num_importance=3),
    "vimco": lambda: IWELBO(ScoreFunction(VIMCO()), num_importance=3),
    "bound, disarm": lambda: IWELBO(sites={"b": DisARM()}, num_importance=3),
    "renyi": lambda: RenyiELBO(alpha=0.5, num_importance=3),
    "divergence": lambda: Divergence(f="chi_square", num_importance=3),
    "wake": lambda: ReweightedWakeSleep(num_importance=3),
}


@pytest.mark.filterwarnings("ignore::ppgrad.NotABound")  # nor is it by hand
@pytest.mark.parametrize("name", BESIDE)
def test_beside_any_estimator_it_is_the_sum_by_hand(name: str) -> None:
    """The same draws, the same credit: the gradients differ by rounding alone."""
    found, wanted = (
        ppgrad.measure(BESIDE[name](), drawn_beside(by_hand), guide, replicates=5, seed=3).draws
        for by_hand in (False, True)
    )
    assert found.keys() == wanted.keys()
    for parameter, values in wanted.items():
        torch.testing.assert_close(found[parameter], values, rtol=1e-4, atol=1e-4)


def test_slices_of_a_bound_have_weights_of_their_own() -> None:
    def model() -> None:
        with pyro.plate("n", 4):
            u = pyro.sample("u", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Bernoulli(0.3), infer=PARALLEL)
            pyro.sample("x", dist.Normal(u + z, 1.0), obs=DATA)

    def local() -> None:
        with pyro.plate("n", 4):
            pyro.sample("u", dist.Normal(parameters({"p_u": [0.0] * 4})["p_u"], 1.0))

    bound = IWELBO(num_importance=3)
    bound.loss(model, local)
    assert bound.weights == "of each slice of n"


def test_a_sum_is_one_cost_for_each_independent_slice() -> None:
    model = drawn_beside(by_hand=False)
    executor = ELBO().prepare(model, guide).executor
    (dependence,) = executor.known.dependences.values()
    places = {site.name: i for i, site in enumerate(dependence.sites)}
    (cost,) = [site for site in dependence.sites if site.name.startswith("sum")]
    assert cost.has_cost
    assert [plate.name for plate in cost.plates] == ["n"]
    assert not any(dependence.sites[places[name]].has_cost for name in ("z", "x") if name in places)
    reaching = dependence.reaching_cost[places[cost.name]]
    drawn = {dependence.sites[i].name for i in dependence.draws if reaching >> i & 1}
    assert drawn == {"switch", "loc", "b", "u"}
    assert not dependence.coupled(dependence.draws[2]), "a slice moves its own cost alone"


MIXED = {
    "score": {"switch": ScoreFunction(), "b": ScoreFunction()},
    "disarm": {"switch": DisARM(), "b": DisARM(), "loc": Pathwise()},
    "mixed": {"switch": LocalExpectation(), "b": ScoreFunction(), "loc": MeasureValued()},
}


@pytest.mark.parametrize("name", MIXED)
def test_unbiased_beside_draws(name: str) -> None:
    """Against quadrature of the program that has its sum written by hand."""
    data = {"reference": small_and_exact()}
    objective = ELBO(sites=MIXED[name])
    found = ppgrad.measure(objective, small(by_hand=False), small_guide, replicates=20_000, seed=5)
    components = sum(value.numel() for value in data["reference"].values())
    for parameter, exact in data["reference"].items():
        p_value = describe(found.draws[parameter].numpy(), exact.detach().numpy()).p_value
        assert (p_value > SUITE_FAILURE_RATE / (100 * components)).all(), parameter


def small(by_hand: bool) -> Callable[[], None]:
    def model() -> None:
        logits = parameters({"w": [0.1, 0.2]})["w"]
        switch = pyro.sample("switch", dist.Bernoulli(0.4))
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("n", 2):
            b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.3)))
            if by_hand:
                means = torch.stack([loc * z + switch - 0.5 * b * z for z in (0.0, 1.0)])
                densities = dist.Normal(means, 1.0).log_prob(DATA[:2]) + logits.log_softmax(-1).unsqueeze(-1)
                pyro.factor("x", densities.logsumexp(0))
            else:
                z = pyro.sample("z", dist.Categorical(logits=logits), infer=PARALLEL)
                pyro.sample("x", dist.Normal(loc * z + switch - 0.5 * b * z, 1.0), obs=DATA[:2])

    return model


def small_guide() -> None:
    place = parameters({"p_s": 0.3, "p_l": 0.2, "p_b": [-1.0, 0.4]})
    switch = pyro.sample("switch", dist.Bernoulli(logits=place["p_s"]))
    pyro.sample("loc", dist.Normal(place["p_l"] + 0.3 * switch, 0.7))
    with pyro.plate("n", 2):
        pyro.sample("b", dist.Bernoulli(logits=place["p_b"]))


@cache
def small_and_exact() -> dict[str, Tensor]:
    return ppgrad.exact_gradient(ELBO(), small(by_hand=True), small_guide)


def test_exact_gradients_know_sums() -> None:
    found = ppgrad.exact_gradient(ELBO(), small(by_hand=False), small_guide)
    for parameter, exact in small_and_exact().items():
        torch.testing.assert_close(found[parameter], exact, rtol=1e-4, atol=1e-5)


def chain_beside_draws(by_hand: bool, leaves_torch: bool) -> Callable[[], None]:
    """A chain whose length, and whose data, a draw decides; with ``leaves_torch`` in Python's hands."""

    def model() -> None:
        logits = parameters({"w": [0.1, -0.4]})["w"]
        table = torch.stack([logits, -logits])
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Bernoulli(0.4))
        shift = (1.0 if loc.item() > 0 else -1.0) if leaves_torch else 0.0
        state: Any = None
        for t in pyro.markov(range(1 + int(b.item()) if leaves_torch else 2)):
            if by_hand:
                first = logits.log_softmax(-1)
                moved = first if state is None else (state.unsqueeze(-1) + table.log_softmax(-1)).logsumexp(0)
                state = moved + dist.Normal(torch.stack([0 * loc, loc]) + shift + b, 1.0).log_prob(DATA[t])
            else:
                fn = dist.Categorical(logits=logits if state is None else table[state])
                state = pyro.sample(f"z_{t}", fn, infer=PARALLEL)
                pyro.sample(f"x_{t}", dist.Normal(loc * state + shift + b, 1.0), obs=DATA[t])
        if by_hand:
            pyro.factor("x", state.logsumexp(0))

    return model


def two_draws() -> None:
    place = parameters({"p_b": 0.3, "p_l": 0.2, "p_s": -0.3})
    pyro.sample("loc", dist.Normal(place["p_l"], place["p_s"].exp()))
    pyro.sample("b", dist.Bernoulli(logits=place["p_b"]))


CHANGING: dict[str, Callable[[], Objective]] = {
    "elbo": lambda: ELBO(num_particles=3),
    "disarm": lambda: ELBO(sites={"b": DisARM()}, num_particles=2),
    "grid": lambda: ELBO(sites={"b": Enumerate()}),
    "bound": lambda: IWELBO(num_importance=3),
    "doubly reparameterized": lambda: IWELBO(sites={"loc": DReG()}, num_importance=3),
}


@pytest.mark.filterwarnings("ignore::ppgrad.NoGradientPath")
@pytest.mark.parametrize("leaves_torch", [False, True])
@pytest.mark.parametrize("name", CHANGING)
def test_a_chain_whose_length_a_draw_decides(name: str, leaves_torch: bool) -> None:
    found, wanted = (
        ppgrad.measure(CHANGING[name](), chain_beside_draws(by_hand, leaves_torch), two_draws, replicates=6, seed=2)
        for by_hand in (False, True)
    )
    for parameter, values in wanted.draws.items():
        torch.testing.assert_close(found.draws[parameter], values, rtol=1e-4, atol=1e-5)


def test_second_derivatives() -> None:
    found, wanted = (
        ppgrad.hessian(ELBO(num_particles=2), chain_beside_draws(by_hand, False), two_draws, seed=2)
        for by_hand in (False, True)
    )
    for row, values in wanted.items():
        for column, value in values.items():
            torch.testing.assert_close(found[row][column], value, rtol=1e-4, atol=1e-5)


def test_it_trains_a_mixture_with_an_autoguide() -> None:
    data = torch.cat([torch.randn(20) * 0.3 - 2.0, torch.randn(20) * 0.3 + 2.0])

    def model() -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("k", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 3.0))
        with pyro.plate("n", 40):
            z = pyro.sample("z", dist.Categorical(weights), infer=PARALLEL)
            pyro.sample("x", dist.Normal(locs[z], 0.5), obs=data)

    auto = AutoNormal(poutine.block(model, hide=["z"]), init_loc_fn=lambda site: init(site))
    svi = SVI(model, auto, Adam({"lr": 0.05}), ELBO(num_particles=4))
    for _ in range(200):
        svi.step()
    torch.testing.assert_close(auto.median()["locs"].sort().values, torch.tensor([-2.0, 2.0]), rtol=0, atol=0.3)


def init(site: dict[str, Any]) -> Tensor:
    return torch.tensor([-0.5, 0.5]) if site["name"] == "locs" else torch.full((2,), 0.5)


# Random programs, summed by brute force.


@dataclass(frozen=True)
class Step:
    """A summed-out site with ``size`` values, computed from an earlier one; what is observed of it."""

    size: int
    parent: int | None
    in_plate: bool
    observed: int
    is_masked: bool


def random_steps(seed: int) -> list[Step]:
    chance = random.Random(seed)
    steps: list[Step] = []
    for i in range(chance.randint(2, 4)):
        parent = chance.choice([None, *range(i)])
        inside = chance.random() < 0.4 or (parent is not None and steps[parent].in_plate)
        size = 2 if inside else chance.choice([2, 3])
        steps.append(Step(size, parent, inside, chance.randint(0, 2), chance.random() < 0.3))
    return steps


def program_of_steps(steps: list[Step], seed: int, scale: float) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(seed)
    logits = {
        f"l_{i}": torch.randn(*([] if s.parent is None else [steps[s.parent].size]), s.size, generator=generator)
        for i, s in enumerate(steps)
    }
    locs = {f"m_{i}": torch.randn(s.size, generator=generator) for i, s in enumerate(steps)}
    data, masks = torch.randn(4, 2, 2, generator=generator), torch.rand(4, 2, generator=generator) < 0.5

    def model() -> None:
        tables = parameters({**logits, **locs})
        values: list[Tensor] = []
        plate = pyro.plate("n", 2)
        with poutine.scale(scale=scale):
            for i, step in enumerate(steps):
                own = tables[f"l_{i}"] if step.parent is None else tables[f"l_{i}"][values[step.parent]]
                mask = masks[i] if step.in_plate else masks[i, 0]
                with ExitStack() as around:
                    if step.in_plate:
                        around.enter_context(plate)
                    if step.is_masked:
                        around.enter_context(poutine.mask(mask=mask))
                    values.append(pyro.sample(f"z_{i}", dist.Categorical(logits=own), infer=PARALLEL))
                    for j in range(step.observed):
                        observed = data[i, j] if step.in_plate else data[i, j, 0]
                        pyro.sample(f"x_{i}{j}", dist.Normal(tables[f"m_{i}"][values[i]], 1.0), obs=observed)

    return model


def by_brute_force(steps: list[Step], model: Callable[[], None], scale: float) -> tuple[float, dict[str, Tensor]]:
    """Minus the scaled log of the sum over all joint values of all elements, and its gradient."""
    pyro.clear_param_store()
    elements = [range(step.size) for step in steps for _ in range(2 if step.in_plate else 1)]
    terms = []
    for joint in itertools.product(*elements):
        left, values = list(joint), {}
        for i, step in enumerate(steps):
            own = [left.pop(0) for _ in range(2 if step.in_plate else 1)]
            values[f"z_{i}"] = torch.tensor(own if step.in_plate else own[0])
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace()
        total = torch.zeros(())
        for name, node in trace.nodes.items():
            if node["type"] == "sample" and name != "n":
                density = node["fn"].log_prob(node["value"])
                masked = density if node["mask"] is None or name[0] == "z" else torch.where(node["mask"], density, 0.0)
                total = total + masked.sum()
        terms.append(total)
    loss = -scale * torch.stack(terms).logsumexp(0)
    loss.backward()
    leaves = dict(pyro.get_param_store().named_parameters())
    return loss.item(), {name: leaf.grad.clone() for name, leaf in leaves.items() if leaf.grad is not None}


@pytest.mark.parametrize("seed", range(25))
def test_random_programs_against_all_joint_values(seed: int) -> None:
    steps, scale = random_steps(seed), 1.0 if seed % 2 else 2.5
    model = program_of_steps(steps, seed, scale)
    wanted, exact = by_brute_force(steps, model, scale)
    loss, gradient = loss_and_gradient(ELBO(num_particles=1 + seed % 3), model)
    assert loss == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    for name, value in exact.items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-4, atol=1e-5)
