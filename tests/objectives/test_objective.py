"""Objectives in Pyro's own machinery: SVI, ELBOModule, autoguides, seeds, parameters."""

from __future__ import annotations

import inspect
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer import SVI, Trace_ELBO, autoguide
from pyro.nn import PyroModule, PyroParam
from torch import nn

import ppgrad
from ppgrad import (
    ELBO,
    Constant,
    Critic,
    Enumerate,
    ExpectedReturn,
    InvalidAssignment,
    LeaveOneOut,
    MovingAverage,
    Pathwise,
    ScoreFunction,
    config_gradient,
)
from ppgrad.testing import all_problems
from ppgrad.testing.problems import parameters

PROBLEMS = all_problems()
DATA = torch.tensor([1.2, 2.9, 1.8, 2.2, 3.1])


def model(data: torch.Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    with pyro.plate("n", len(data)):
        pyro.sample("x", dist.Normal(mu, sigma), obs=data)


@pytest.mark.parametrize("name", ["conjugate_elbo", "discrete_elbo", "subsampled_elbo", "normal_plate", "episodes"])
@pytest.mark.parametrize("particles", [1, 3])
def test_one_seed_one_loss(name: str, particles: int) -> None:
    problem = PROBLEMS[name]
    objective = problem.objective(num_particles=particles)
    losses = []
    for method in (objective.loss, objective.differentiable_loss, objective.loss_and_grads):
        pyro.clear_param_store()
        pyro.set_rng_seed(7)
        losses.append(float(torch.as_tensor(method(problem.model, problem.guide)).detach()))
    assert losses[0] == losses[1] == losses[2]
    found = ppgrad.gradient(objective, problem.model, problem.guide, seed=7)
    for parameter, value in pyro.get_param_store().named_parameters():
        torch.testing.assert_close(-value.grad, found[parameter])


@pytest.mark.parametrize("name", ["conjugate_elbo", "discrete_elbo", "subsampled_elbo"])
def test_the_bound_is_trace_elbos(name: str) -> None:
    problem = PROBLEMS[name]
    ELBO().loss(problem.model, problem.guide)
    for seed in range(5):
        pyro.set_rng_seed(seed)
        ours = ELBO().loss(problem.model, problem.guide)
        pyro.set_rng_seed(seed)
        theirs = Trace_ELBO().loss(problem.model, problem.guide)
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_the_gradient_is_trace_elbos_where_both_are_pathwise() -> None:
    problem = PROBLEMS["subsampled_elbo"]
    for loss in (ELBO(), Trace_ELBO()):
        pyro.set_rng_seed(3)
        loss.loss_and_grads(problem.model, problem.guide)
    for name, value in pyro.get_param_store().named_parameters():
        pyro.set_rng_seed(3)
        torch.testing.assert_close(value.grad / 2, -ppgrad.gradient(ELBO(), problem.model, problem.guide)[name])


GUIDES = [
    autoguide.AutoNormal,
    autoguide.AutoMultivariateNormal,
    autoguide.AutoDelta,
    autoguide.AutoLowRankMultivariateNormal,
    autoguide.AutoNormalMessenger,
    autoguide.AutoHierarchicalNormalMessenger,
    autoguide.AutoStructured,
]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.__name__)
def test_svi_with_autoguides(guide: type) -> None:
    auto = guide(model)
    svi = SVI(model, auto, pyro.optim.Adam({"lr": 0.05}), ELBO(num_particles=4))
    for _ in range(300):
        svi.step(DATA)
    pyro.set_rng_seed(0)
    bound = Trace_ELBO(num_particles=500).loss(model, auto, DATA)
    assert bound < 12.5  # minus the log evidence is about 10; a delta guide has no entropy
    assert bound == pytest.approx(svi.evaluate_loss(DATA), abs=5)


def test_an_autoguides_site_answers_to_the_models_name() -> None:
    auto = autoguide.AutoNormal(model)
    objective = ELBO(sites={"mu": ScoreFunction(LeaveOneOut())}, num_particles=2)
    objective.loss(model, auto, DATA)
    assert ScoreFunction(LeaveOneOut()) in objective.prepare(model, auto, (DATA,)).executor.assignment.used()


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.double()
        self.float()

    def forward(self, state: torch.Tensor) -> dist.Normal:
        return dist.Normal(self.linear(state).squeeze(-1), 0.5)


def episode(policy: nn.Module) -> None:
    with pyro.plate("n", 32):
        state = torch.ones(32, 1)
        action = ppgrad.policy("a", policy(state), context=state)
        ppgrad.cost("f", (action - 3) ** 2)


def registered(policy: nn.Module) -> None:
    pyro.module("policy", policy)
    episode(policy)


class PyroPolicy(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](1, 1)
        self.scale = PyroParam(torch.tensor(0.5), constraint=dist.constraints.positive)

    def forward(self, state: torch.Tensor) -> dist.Normal:
        return dist.Normal(self.linear(state).squeeze(-1), self.scale)


@pytest.mark.parametrize("program", [episode, registered], ids=["argument", "pyro.module"])
@pytest.mark.parametrize("policy", [Policy, PyroPolicy])
@pytest.mark.parametrize(
    "estimator", [Pathwise(), ScoreFunction(LeaveOneOut("n")), ScoreFunction(MovingAverage())], ids=repr
)
def test_svi_trains_parameters_wherever_they_live(program, policy, estimator) -> None:
    actor = policy()
    svi = SVI(program, None, pyro.optim.Adam({"lr": 0.05}), loss=ExpectedReturn(estimator))
    for _ in range(400):
        svi.step(actor)
    assert actor(torch.ones(1, 1)).mean.item() == pytest.approx(3.0, abs=0.5)


def test_a_closed_over_module_and_tensor_are_found() -> None:
    actor, shift = Policy(), torch.tensor(0.1, requires_grad=True)

    def program() -> None:
        action = ppgrad.policy("a", dist.Normal(actor(torch.ones(1)).mean + shift, 1.0))
        ppgrad.cost("f", (action - 3) ** 2)

    found = ppgrad.gradient(ExpectedReturn(), program, seed=0)
    assert set(found) == {"actor.linear.weight", "actor.linear.bias", "shift"}
    assert all(value.abs().sum() > 0 for value in found.values())
    measured = ppgrad.measure(ExpectedReturn(), program, replicates=50)
    assert all(value.abs().sum() > 0 for value in measured.mean.values())


unrelated = nn.Linear(1, 1)


class Agent:
    def __init__(self) -> None:
        self.unrelated = nn.Linear(1, 1)

    def run(self) -> None:
        ppgrad.cost("f", ppgrad.policy("a", dist.Normal(self.unrelated(torch.ones(1)).squeeze(-1), 1.0)) ** 2)


def test_a_method_holds_what_its_owner_does_and_no_global_of_that_name() -> None:
    assert set(ppgrad.gradient(ExpectedReturn(), Agent().run, seed=0)) == {
        "self.unrelated.weight",
        "self.unrelated.bias",
    }


@pytest.mark.parametrize("method", ["gradient", "measure"])
def test_a_batch_norms_statistics_are_left_alone(method: str) -> None:
    actor = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))

    def program(actor: nn.Module) -> None:
        with pyro.plate("n", 4):
            action = ppgrad.policy("a", dist.Normal(actor(torch.ones(4, 1)).squeeze(-1), 1.0))
            ppgrad.cost("f", action**2)

    before = {name: buffer.clone() for name, buffer in actor.named_buffers()}
    options = {"replicates": 5} if method == "measure" else {}
    getattr(ppgrad, method)(ExpectedReturn(), program, args=(actor,), seed=0, **options)
    assert all(torch.equal(buffer, before[name]) for name, buffer in actor.named_buffers())


def test_a_replaced_or_thawed_parameter_is_trained_again() -> None:
    holder = {"policy": Policy()}

    def program() -> None:
        ppgrad.cost("f", (ppgrad.policy("a", holder["policy"](torch.ones(1))) - 3) ** 2)

    svi = SVI(program, None, pyro.optim.Adam({"lr": 0.1}), loss=ExpectedReturn())

    def moves() -> bool:
        before = holder["policy"].linear.bias.clone()
        svi.step()
        return not torch.equal(before, holder["policy"].linear.bias)

    assert moves()
    holder["policy"] = Policy()
    assert moves()
    holder["policy"].linear.bias.requires_grad_(False)
    assert not moves()
    holder["policy"].linear.bias.requires_grad_(True)
    assert moves()


def test_constrained_parameters_have_unconstrained_gradients() -> None:
    def program() -> None:
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        ppgrad.cost("f", ppgrad.policy("x", dist.Normal(0.0, scale)) ** 2)

    result = ppgrad.measure(ExpectedReturn(), program, replicates=2000)
    assert result.reference_kind == "exact"
    assert result.reference["scale"] == pytest.approx(-8.0, rel=1e-3)  # d(−e^{2u})/du at e^u = 2
    assert result.p_value["scale"] > 1e-7


def test_elbo_module_trains_with_a_torch_optimizer() -> None:
    pyro.settings.set(module_local_params=True)
    try:
        auto = autoguide.AutoNormal(model)
        loss = ELBO(num_particles=4)(model, auto)
        loss(DATA)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
        before = Trace_ELBO(num_particles=100).loss(model, auto, DATA)
        for _ in range(200):
            optimizer.zero_grad()
            loss(DATA).backward()
            optimizer.step()
        assert Trace_ELBO(num_particles=100).loss(model, auto, DATA) < before - 5
    finally:
        pyro.settings.set(module_local_params=False)


def test_a_critic_trains_along() -> None:
    actor, critic = Policy(), nn.Linear(1, 1)
    objective = ExpectedReturn(ScoreFunction(Critic(critic)))
    loss = objective(episode)
    assert set(critic.parameters()) <= set(loss.parameters())
    svi = SVI(episode, None, pyro.optim.Adam({"lr": 0.03}), loss=objective)
    for _ in range(600):
        svi.step(actor)
    assert actor(torch.ones(1, 1)).mean.item() == pytest.approx(3.0, abs=0.5)
    value = critic(torch.ones(1)).item()
    assert value == pytest.approx(-0.25, abs=0.2)  # the return at the optimum is −0.5²
    trained = {name for name, _ in pyro.get_param_store().named_parameters()}
    assert any("critic" in name for name in trained)
    assert not any("critic" in name for name in ppgrad.gradient(objective, episode, args=(actor,), seed=0))


def test_a_moving_average_uses_the_value_from_before_and_is_debiased() -> None:
    def program(value: float) -> None:
        k = ppgrad.policy("k", dist.Bernoulli(logits=parameters({"l": 0.0})["l"]))
        ppgrad.cost("f", value + 0.0 * k)

    objective = ExpectedReturn(ScoreFunction(MovingAverage(0.5)))
    seen = []
    for value in (8.0, 4.0, 0.0):
        estimate = objective.estimate(objective.prepare(program, None, (value,)).executor)
        draw, signal, _ = estimate.served[0]
        memory = objective.memory.get("k", {})
        seen.append(float(objective.estimator.baseline.predict(draw, signal, memory)))
        objective.loss_and_grads(program, None, value)
    assert seen == pytest.approx([0.0, 8.0, (0.25 * 8 + 0.5 * 4) / 0.75])
    objective.loss(program, None, 100.0)
    ppgrad.gradient(objective, program, args=(100.0,))
    assert float(objective.memory["k"]["count"]) == 3


def test_the_order_of_choices() -> None:
    chosen = {}

    def program() -> None:
        p = parameters({"l": 0.1})["l"]
        for name in ("a", "b", "c", "d"):
            infer = {"gradient": ScoreFunction(Constant(1.0))} if name in ("a", "b") else {}
            chosen[name] = ppgrad.policy(name, dist.Bernoulli(logits=p), infer=infer)
        ppgrad.reward("r", chosen["a"] + chosen["b"] + chosen["c"] + chosen["d"])

    objective = ExpectedReturn(Enumerate(), sites={"a": ScoreFunction(Constant(2.0))})
    met = objective.prepare(program).executor.assignment
    assert met.used() == [ScoreFunction(Constant(2.0)), ScoreFunction(Constant(1.0)), Enumerate()]
    by_callable = ExpectedReturn(sites=lambda message: Enumerate() if message["name"] == "a" else None)
    used = by_callable.prepare(program).executor.assignment.used()
    assert used == [Enumerate(), ScoreFunction(Constant(1.0)), ScoreFunction()]


@pytest.mark.parametrize("style", ["decorator", "call", "positional"])
def test_config_gradient(style: str) -> None:
    def program() -> None:
        p = parameters({"l": 0.1})["l"]
        a = ppgrad.policy("a", dist.Bernoulli(logits=p))
        b = ppgrad.policy("b", dist.Bernoulli(logits=p), infer={"gradient": ScoreFunction(Constant(1.0))})
        ppgrad.reward("r", a + b)

    if style == "decorator":
        configured = config_gradient(default=Enumerate())(program)
    elif style == "call":
        configured = config_gradient(program, sites={"a": Enumerate()})
    else:
        configured = config_gradient(program, Enumerate())
    used = ExpectedReturn(Pathwise()).prepare(configured).executor.assignment.used()
    assert used == [Enumerate(), ScoreFunction(Constant(1.0))]
    with pytest.raises(InvalidAssignment, match="instance"):
        config_gradient(program, Enumerate)


def test_every_keyword_of_pyros_base_class_is_accepted() -> None:
    keywords = set(inspect.signature(PyroELBO.__init__).parameters) - {"self"}
    values = {
        "num_particles": 2,
        "max_plate_nesting": 3,
        "max_iarange_nesting": 3,
        "vectorize_particles": True,
        "strict_enumeration_warning": False,
        "ignore_jit_warnings": True,
        "jit_options": {},
        "retain_graph": True,
        "tail_adaptive_beta": -0.5,
    }
    assert keywords == set(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        objective = ELBO(**values)
    problem = PROBLEMS["conjugate_elbo"]
    objective.loss_and_grads(problem.model, problem.guide)
    assert objective.max_plate_nesting == 3


def test_max_plate_nesting_is_checked() -> None:
    with pytest.raises(ValueError, match="plate stack overflow"):
        ExpectedReturn(max_plate_nesting=0).loss(PROBLEMS["normal_plate"].model, None)


def test_evaluate_loss_and_step_of_svi() -> None:
    problem = PROBLEMS["conjugate_elbo"]
    svi = SVI(problem.model, problem.guide, pyro.optim.Adam({"lr": 0.01}), ELBO())
    assert isinstance(svi.evaluate_loss(), float)
    assert isinstance(svi.step(), float)


def test_expected_return_with_a_guide() -> None:
    """The guide draws the action; a transition of the model is drawn by the model."""

    def program() -> None:
        action = ppgrad.policy("a", dist.Normal(0.0, 1.0))
        state = pyro.sample("s", dist.Normal(action, 0.1))
        ppgrad.cost("f", (state - 2) ** 2)

    def guide() -> None:
        pyro.sample("a", dist.Normal(parameters({"mu": 0.5})["mu"], 1.0))

    result = ppgrad.measure(ExpectedReturn(ScoreFunction()), program, guide, replicates=4000)
    assert result.reference["mu"] == pytest.approx(3.0, rel=1e-3)
    assert result.p_value["mu"] > 1e-7


def test_a_factor_is_not_left_out_in_silence() -> None:
    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(parameters({"mu": 0.5})["mu"], 1.0))
        ppgrad.reward("r", x)
        pyro.factor("f", x)

    with pytest.warns(UserWarning, match="factor 'f'"):
        ppgrad.gradient(ExpectedReturn(), program, seed=0)


def test_rewards_are_log_factors_under_pyros_own_elbos() -> None:
    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(0.0, 1.0))
        ppgrad.reward("r", -(x**2))
        ppgrad.cost("c", x)

    def guide() -> None:
        pyro.sample("x", dist.Normal(parameters({"m": 0.4})["m"], 1.0))

    pyro.set_rng_seed(0)
    theirs = Trace_ELBO().loss(program, guide)
    pyro.set_rng_seed(0)
    assert ELBO().loss(program, guide) == pytest.approx(theirs, rel=1e-5)


def test_discount_times() -> None:
    def program() -> None:
        ppgrad.policy("x", dist.Normal(parameters({"mu": 0.5})["mu"], 1.0))
        ppgrad.reward("r_0", 1.0)
        ppgrad.reward("r_1", 1.0)
        ppgrad.reward("bonus", 1.0, time=0)
        ppgrad.reward("r_2", 1.0)
        for i in pyro.plate("i", 2):
            ppgrad.reward(f"s_{i}", 1.0)

    with pytest.warns(ppgrad.NoGradientPath):
        assert ExpectedReturn(discount=0.5).loss(program, None) == -(1 + 0.5 + 1 + 0.25 + 2)


def test_a_second_critic_is_trained_as_the_first() -> None:
    ends = []
    for _ in range(2):  # the param store still knows the first one
        torch.manual_seed(0)
        actor, critic = Policy(), nn.Linear(1, 1)
        before = critic.bias.detach().clone()
        svi = SVI(episode, None, pyro.optim.Adam({"lr": 0.05}), loss=ExpectedReturn(ScoreFunction(Critic(critic))))
        for _ in range(3):
            svi.step(actor)
        assert not torch.equal(critic.bias, before)
        ends.append(critic.bias.detach())
    assert torch.equal(*ends)
