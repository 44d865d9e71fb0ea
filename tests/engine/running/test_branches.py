"""Branches: they add up over sites, share noise, and leave everything upstream alone."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import REBAR, VIMCO, DisARM, ExpectedReturn, InvalidInput, LocalExpectation, MeasureValued, ScoreFunction
from ppgrad.testing.problems import all_problems, parameters


def chain(sites: int, counter: list[int] | None = None) -> None:
    p = parameters({"logit": 0.2})["logit"]
    state = torch.tensor(0.0)
    for t in range(sites):
        if counter is not None:
            counter[0] += 1
        state = 0.5 * state + ppgrad.policy(f"b_{t}", dist.Bernoulli(logits=p + state))
        ppgrad.cost(f"c_{t}", state**2)


def test_fifty_disarm_sites_cost_fifty_one_executions() -> None:
    counter = [0]
    objective = ExpectedReturn(DisARM())
    executor = objective.prepare(chain, None, (50, counter)).executor
    counter[0] = 0
    objective.estimate(executor)
    assert counter[0] == 51 * 50
    assert executor.evaluations == 51


def test_the_budget_names_the_sites_that_ask_for_most() -> None:
    def program() -> None:
        p = parameters({"logits": torch.zeros(40)})["logits"]
        x = ppgrad.policy("wide", dist.Bernoulli(logits=p).to_event(1))
        y = ppgrad.policy("small", dist.Bernoulli(logits=p[0]))
        ppgrad.reward("r", x.sum() * y)

    objective = ExpectedReturn(LocalExpectation(), max_branches=30)
    with pytest.raises(InvalidInput, match=r"max_branches is 30.*'wide' for 40"):
        ppgrad.gradient(objective, program)


def test_elements_of_a_plate_share_a_branch() -> None:
    def program() -> None:
        p = parameters({"logits": torch.linspace(-1, 1, 30)})["logits"]
        with pyro.plate("n", 30):
            x = ppgrad.policy("x", dist.Bernoulli(logits=p))
            ppgrad.reward("r", x * torch.arange(30.0))

    objective = ExpectedReturn(LocalExpectation())
    found = ppgrad.gradient(objective, program)["logits"]
    objective.loss_and_grads(program, None)
    assert objective.prepare(program).executor.evaluations == 2
    q = torch.linspace(-1, 1, 30).sigmoid()
    torch.testing.assert_close(found, q * (1 - q) * torch.arange(30.0))


@pytest.mark.parametrize("particles", [1, 5])
@pytest.mark.parametrize("vectorize", [True, False])
def test_branches_share_their_noise(particles: int, vectorize: bool) -> None:
    """Upstream is replayed exactly, and downstream sees the same ε: the difference is that of the site alone."""

    def program() -> None:
        up = ppgrad.policy("up", dist.Normal(0.0, 1.0))
        b = ppgrad.policy("b", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        down = ppgrad.policy("down", dist.Normal(b, 1.0))
        ppgrad.cost("f", up + 10 * down)

    objective = ExpectedReturn(sites={"b": LocalExpectation()}, num_particles=particles, vectorize_particles=vectorize)
    estimate = objective.estimate(objective.prepare(program).executor)
    (draw, signal, _) = next(served for served in estimate.served if served[0].name == "b")
    difference = signal.alternatives[0] - signal.base
    torch.testing.assert_close(difference, 10 * (1 - 2 * draw.value), rtol=1e-4, atol=1e-4)


def test_the_generators_go_on_where_the_program_left_them() -> None:
    for estimator in (ScoreFunction(), LocalExpectation()):
        pyro.set_rng_seed(3)
        objective = ExpectedReturn(estimator)
        ppgrad.gradient(objective, chain, args=(2,))
        # The program drew two numbers; the branches drew none of their own.
        assert torch.rand(()) == _after_two_draws()


def _after_two_draws() -> torch.Tensor:
    state = torch.get_rng_state()
    pyro.set_rng_seed(3)
    ExpectedReturn(ScoreFunction()).loss(chain, None, 2)
    number = torch.rand(())
    torch.set_rng_state(state)
    return number


def test_a_program_that_cannot_be_relaxed_is_refused() -> None:
    table = torch.tensor([1.0, 3.0])

    def program() -> None:
        z = ppgrad.policy("z", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        index = z.to(torch.int64) if bool(((z == 0) | (z == 1)).all()) else z
        ppgrad.reward("r", table.index_select(0, index.reshape(1)).squeeze(0))

    with pytest.raises(ppgrad.Unsupported, match=r"REBAR at site 'z'.*\n.*LocalExpectation\(\)"):
        ppgrad.gradient(ExpectedReturn(REBAR()), program)


def test_rebar_and_a_later_score_under_a_bound_are_refused() -> None:
    problem = all_problems()["entropic_risk"]
    with pytest.raises(ppgrad.Unsupported, match=r"REBAR cannot serve site 'a'.*'b' has a score"):
        ppgrad.gradient(problem.objective(REBAR(), **problem.options), problem.model)


def test_noise_downstream_of_a_relaxed_value_keeps_its_score() -> None:
    def program() -> None:
        b = ppgrad.policy("b", dist.Bernoulli(logits=parameters({"logit": 0.3})["logit"]))
        x = ppgrad.policy("x", dist.Bernoulli(logits=3 * b - 1))
        ppgrad.reward("r", (x - 0.2) ** 2 + b)

    objective = ExpectedReturn(ppgrad.Pathwise(), sites={"b": REBAR()})
    result = ppgrad.measure(objective, program, replicates=20_000)
    assert result.reference_kind == "exact"
    assert result.p_value["logit"] > 1e-8


def test_vimco_needs_importance_samples() -> None:
    with pytest.raises(ppgrad.Unsupported, match="num_importance=2"):
        ppgrad.gradient(ExpectedReturn(ScoreFunction(VIMCO())), chain, args=(2,))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperatures(temperature: float) -> None:
    with pytest.raises(InvalidInput, match="temperature"):
        REBAR(temperature=temperature)


def test_measure_valued_refuses_by_name() -> None:
    with pytest.raises(ppgrad.Unsupported, match=r"'x': the concentration of Gamma requires"):
        ppgrad.gradient(ExpectedReturn(MeasureValued()), all_problems()["gamma"].model)
