"""What a gradient costs beside the program itself, counted and not timed; and that short cuts change nothing."""

from __future__ import annotations

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


def gradient(estimator: ppgrad.Estimator, policy: Policy, steps: int) -> Callable[[], object]:
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


@pytest.mark.parametrize("estimator", [ScoreFunction(LeaveOneOut(over="episodes")), Pathwise()], ids=repr)
@pytest.mark.parametrize("name", ["Normal", "Categorical"])
def test_few_operations_and_calls_beside_the_programs_own(estimator: ppgrad.Estimator, name: str) -> None:
    policy = POLICIES[name]
    if isinstance(estimator, Pathwise) and name == "Categorical":
        return
    beside = per_step(operations, lambda n: gradient(estimator, policy, n)) - per_step(
        operations, lambda n: traced(policy, n)
    )
    assert beside <= 8
    ours, bare = (
        per_step(calls, lambda n: make(n))
        for make in (lambda n: gradient(estimator, policy, n), lambda n: traced(policy, n))
    )
    print(beside, ours, bare)
    assert ours <= 1.6 * bare
