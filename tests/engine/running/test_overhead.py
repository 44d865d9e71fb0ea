"""What a gradient costs beside the program itself, counted and not timed; and that short cuts change nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ppgrad
from ppgrad import ELBO, Constant, ExpectedReturn, LeaveOneOut, NonFinite, Pathwise, ScoreFunction
from ppgrad.core.generators import forked
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.measurement.gradient import ascent
from ppgrad.objectives import surrogates
from ppgrad.testing.problems import parameters

EPISODES = 4
Policy = Callable[[torch.Tensor], Any]

POLICIES: dict[str, Policy] = {
    "Normal": lambda out: dist.Normal(out[:, 0].tanh(), out[:, 1].sigmoid()),
    "Categorical": lambda out: dist.Categorical(logits=out),
    "Categorical of probs": lambda out: dist.Categorical(probs=out.softmax(-1)),
    "Bernoulli": lambda out: dist.Bernoulli(logits=out[:, 0]),
    "Bernoulli of probs": lambda out: dist.Bernoulli(out[:, 0].sigmoid()),
    "Normal to_event": lambda out: dist.Normal(out.tanh(), 0.5).to_event(1),
    "Bernoulli to_event": lambda out: dist.Bernoulli(logits=out).to_event(1),
    "Gamma": lambda out: dist.Gamma(out[:, 0].sigmoid() + 0.5, 1.0),
}


def rollout(policy: Policy, steps: int) -> Callable[[], None]:
    torch.manual_seed(0)
    weight = torch.randn(2, 3, requires_grad=True)

    def program() -> None:
        with pyro.plate("episodes", EPISODES):
            state = torch.linspace(-1.0, 1.0, 3 * EPISODES).reshape(EPISODES, 3)
            for t in pyro.markov(range(steps)):
                action = (
                    ppgrad.policy(f"a_{t}", policy(state @ weight.T)).to(weight.dtype).reshape(EPISODES, -1).mean(-1)
                )
                state = 0.9 * state + 0.1 * action.unsqueeze(-1)
                ppgrad.reward(f"r_{t}", -state.square().sum(-1))

    return program


class Operations(TorchDispatchMode):
    """Counts torch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(call: Callable[[], object]) -> int:
    call()
    with Operations() as counter:
        call()
    return counter.count


def calls(call: Callable[[], object]) -> int:
    """Calls of Python and C functions."""
    call()
    count = 0

    def watch(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(before)
    return count


def loss(estimator: ppgrad.Estimator, policy: Policy, steps: int) -> Callable[[], object]:
    objective, program = ExpectedReturn(estimator), rollout(policy, steps)
    return lambda: objective.differentiable_loss(program, None)


def traced(policy: Policy, steps: int) -> Callable[[], object]:
    program = rollout(policy, steps)

    def run() -> None:
        with pyro.validation_enabled(False):
            poutine.trace(program).get_trace()

    return run


def per_step(count: Callable[[Callable[[], object]], int], make: Callable[[int], Callable[[], object]]) -> float:
    return (count(make(30)) - count(make(20))) / 10


CASES = [
    ("Normal", ScoreFunction(LeaveOneOut(over="episodes"))),
    ("Categorical", ScoreFunction(LeaveOneOut(over="episodes"))),
    ("Normal", Pathwise()),
]


@pytest.mark.parametrize(("name", "estimator"), CASES, ids=repr)
def test_few_operations_and_calls_beside_the_programs_own(name: str, estimator: ppgrad.Estimator) -> None:
    """Two sites a step; 44 operations and 670 calls before densities and surrogates of all steps were joined."""

    def beside(count: Callable[[Callable[[], object]], int]) -> float:
        ours = per_step(count, lambda steps: loss(estimator, POLICIES[name], steps))
        return ours - per_step(count, lambda steps: traced(POLICIES[name], steps))

    assert beside(operations) <= 5
    assert beside(calls) <= 240


def test_the_work_is_linear() -> None:
    def count(steps: int) -> int:
        return operations(loss(ScoreFunction(LeaveOneOut(over="episodes")), POLICIES["Categorical"], steps))

    assert count(80) - count(60) == count(40) - count(20)


def test_an_estimate_is_freed_as_soon_as_nobody_holds_it() -> None:
    """Tensors in a cycle of references would live until the next garbage collection."""
    call = loss(ScoreFunction(LeaveOneOut(over="episodes")), POLICIES["Categorical"], 10)
    call()
    while gc.collect():
        pass  # what other tests have left frees more as it goes
    gc.disable()
    try:
        call()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [found for found in gc.garbage if type(found) is torch.Tensor]  # no fake ones of other tests
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left


def gradient(objective: ppgrad.ExpectedReturn, prepared: Prepared) -> dict[str, torch.Tensor]:
    with forked(7):
        return ascent(objective.estimate(prepared.executor).surrogate, prepared.parameters)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("baseline", [None, Constant(1.0), LeaveOneOut(over="episodes")], ids=repr)
def test_joined_densities_change_no_gradient(name: str, baseline: Any) -> None:
    objective = ExpectedReturn(ScoreFunction(baseline), discount=0.9)
    prepared = objective.prepare(rollout(POLICIES[name], 5))
    apart = replace(prepared, executor=replace(prepared.executor, together=False))
    torch.testing.assert_close(gradient(objective, prepared), gradient(objective, apart), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("baseline", [None, Constant(1.0), LeaveOneOut(over="episodes")], ids=repr)
def test_joined_surrogates_change_no_gradient(name: str, baseline: Any) -> None:
    objective = ExpectedReturn(ScoreFunction(baseline))
    prepared = objective.prepare(rollout(POLICIES[name], 5))
    estimate = objective.estimate(prepared.executor)
    terms = [estimator.surrogate(draw, signal, {}) for draw, signal, estimator in estimate.served]
    (joined,) = surrogates(estimate.served, {})
    assert joined.shape == (1, 5, EPISODES)
    assert torch.equal(joined, torch.cat([term for term in terms if term is not None], 1))


def test_an_estimator_made_of_another_sees_every_draw() -> None:
    seen = []

    class Watching(ScoreFunction):
        def surrogate(self, draw: Any, signal: Any, memory: Any) -> torch.Tensor:
            seen.append(draw.name)
            return super().surrogate(draw, signal, memory)

    ppgrad.gradient(ExpectedReturn(Watching()), rollout(POLICIES["Normal"], 3), seed=0)
    assert seen == ["a_0", "a_1", "a_2"]


def test_sites_under_masks_scales_and_inactive_ones() -> None:
    weight = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)

    def program() -> None:
        with pyro.plate("n", 6, subsample_size=3, dim=-1):
            for t in range(4):
                with poutine.mask(mask=torch.tensor([True, False, True])), poutine.scale(scale=2.0):
                    x = ppgrad.policy(f"x_{t}", dist.Normal(weight, 1.0))
                on = torch.tensor([t > 1, True, True])
                y = ppgrad.policy(f"y_{t}", dist.Normal(weight * x, 1.0).mask(on), infer={"active": on})
                ppgrad.reward(f"r_{t}", x * y)

    objective = ExpectedReturn(ScoreFunction())
    prepared = objective.prepare(program)
    apart = replace(prepared, executor=replace(prepared.executor, together=False))
    torch.testing.assert_close(gradient(objective, prepared), gradient(objective, apart), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*POLICIES, "Uniform"])
def test_checks_after_the_run_change_no_draw(name: str) -> None:
    policies = {**POLICIES, "Uniform": lambda out: dist.Uniform(-1.0, torch.ones(EPISODES))}
    objective = ExpectedReturn(ScoreFunction())
    prepared = objective.prepare(rollout(policies[name], 3))
    known = replace(prepared.executor.known, checks_after=False)
    during = replace(prepared, executor=replace(prepared.executor, known=known))
    after, before = gradient(objective, prepared), gradient(objective, during)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert prepared.executor.known.checks_after == (name != "Uniform")


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()], ids=repr)
@pytest.mark.parametrize("bad", [-1.0, 0.0, float("nan")])
def test_a_parameter_that_turns_bad_later_is_named(estimator: ppgrad.Estimator, bad: float) -> None:
    loc = torch.tensor(0.5, requires_grad=True)

    def program(scale: torch.Tensor) -> None:
        for t in range(3):
            x = ppgrad.policy(f"x_{t}", dist.Normal(loc, scale if t == 1 else scale.abs().nan_to_num() + 1.0))
            ppgrad.reward(f"r_{t}", x)

    objective = ExpectedReturn(estimator)
    ppgrad.gradient(objective, program, args=(torch.tensor(1.0),), seed=0)
    with pytest.raises(NonFinite, match=f"'x_1'.*'scale' of Normal is {bad:g}"):
        ppgrad.gradient(objective, program, args=(torch.tensor(bad),), seed=0)
    ppgrad.gradient(objective, program, args=(torch.tensor(1.0),), seed=0)


def observing(validate: bool | None) -> Callable[[torch.Tensor], None]:
    def model(data: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Bernoulli(logits=z, validate_args=validate), obs=data)

    return model


def guide(data: torch.Tensor) -> None:
    pyro.sample("z", dist.Normal(parameters({"m": 0.0})["m"], 1.0))


def test_data_that_leave_the_support_later_get_pyros_error() -> None:
    objective, model = ELBO(), observing(None)
    ppgrad.gradient(objective, model, guide, args=(torch.tensor(1.0),), seed=0)
    with pytest.raises(ValueError, match="within the support"):
        ppgrad.gradient(objective, model, guide, args=(torch.tensor(0.5),), seed=0)
    with pyro.validation_enabled(False):
        ppgrad.gradient(objective, model, guide, args=(torch.tensor(0.5),), seed=0)


def test_a_distribution_that_is_not_to_be_checked_is_not() -> None:
    objective, model = ELBO(), observing(False)
    for value in (1.0, 0.5, 0.5):
        assert torch.isfinite(ppgrad.gradient(objective, model, guide, args=(torch.tensor(value),), seed=0)["m"])


def test_blocked_rewards_keep_their_shape_check() -> None:
    loc = torch.zeros(2, requires_grad=True)

    def program() -> None:
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.Normal(loc, 1.0))
            with poutine.block(hide=["hidden"]):
                ppgrad.reward("hidden", x)
            ppgrad.reward("r", x)

    assert torch.isfinite(ppgrad.gradient(ExpectedReturn(), program, seed=0)["loc"]).all()
