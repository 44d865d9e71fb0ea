"""Estimators made of a score function, with every baseline that it can have."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import Constant, Critic, ExpectedReturn, GeneralizedAdvantage, Interpolated, InverseVariance, ScoreFunction
from ppgrad.baselines import PerContext, all_baselines
from ppgrad.core import Baseline, Estimator, Unsupported
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.testing.problems import parameters

Wrapper = Callable[[ScoreFunction], Estimator]

WRAPPERS: dict[str, Wrapper] = {
    "Interpolated": lambda score: Interpolated(0.4, score),
    "InverseVariance": InverseVariance,
}
BASELINES = [example for baseline in all_baselines() for example in baseline.examples()]
FAILURE_RATE = SUITE_FAILURE_RATE / (2 * len(BASELINES) * len(WRAPPERS))
HORIZON = 3


def walk(indexed: bool = False) -> None:
    """s_{t+1} = s_t + x_t, x_t ~ N(m, 0.5²), c_t = s_{t+1}²: E[Σ c_t] = Σ (t m)² + t 0.5²."""
    mean = parameters({"m": 0.3})["m"]
    with pyro.plate("n", 2):
        state = torch.zeros(2)
        for t in range(HORIZON):
            context = torch.tensor([t, 0]) if indexed else state.unsqueeze(-1).detach()
            state = state + ppgrad.policy(f"x_{t}", dist.Normal(mean, 0.5).expand([2]), context=context)
            ppgrad.cost(f"c_{t}", state**2)


EXACT = {"m": torch.tensor(-2 * 2 * 0.3 * sum(t**2 for t in range(1, HORIZON + 1)))}


def refusal(objective: ExpectedReturn, args: tuple[bool]) -> str | None:
    try:
        ppgrad.gradient(objective, walk, args=args, seed=0)
    except Unsupported as error:
        return str(error)
    return None


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_it_is_unbiased_or_refused_as_the_score_function_is(baseline: Baseline, wrapper: str) -> None:
    score = ScoreFunction(baseline)
    args = (isinstance(baseline, PerContext),)
    objective = ExpectedReturn(WRAPPERS[wrapper](score), num_particles=2)
    refused = refusal(ExpectedReturn(score, num_particles=2), args)
    if refused is not None:
        also = refusal(objective, args)
        assert also is not None
        assert also.startswith(f"{wrapper} cannot serve site 'x_0'")
        assert refused.splitlines()[0].partition(": ")[2] in also
        return
    found = ppgrad.measure(objective, walk, args=args, replicates=5000, reference=EXACT, seed=0)
    assert float(found.p_value["m"]) > FAILURE_RATE


class Wrong(torch.nn.Module):
    def forward(self, context: torch.Tensor) -> torch.Tensor:
        return 2.0 * context[..., 0] - 1


@pytest.mark.parametrize("options", [{"decay": 0.0}, {"decay": 0.5}, {"steps": 2}, {"normalize": True}], ids=str)
def test_sites_with_weights_of_their_own_are_one_chain(options: dict) -> None:
    """Where no path is followed they give the score function's gradient, whatever is carried from step to step."""
    score = ScoreFunction(GeneralizedAdvantage(Critic(Wrong()), **options))
    expected = ppgrad.gradient(ExpectedReturn(score), walk, seed=0)
    interpolated = ppgrad.gradient(ExpectedReturn(Interpolated(0.0, score)), walk, seed=0)
    tuned = ExpectedReturn(InverseVariance(score))
    tuned.memory = {f"x_{t}": {"alpha": torch.zeros(())} for t in range(HORIZON)}
    mixed = ExpectedReturn(sites={"x_1": Interpolated(0.0, score), "x_[02]": score})
    for found in (interpolated, ppgrad.gradient(tuned, walk, seed=0), ppgrad.gradient(mixed, walk, seed=0)):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_bias_of_the_baseline_is_told(wrapper: str) -> None:
    wrap = WRAPPERS[wrapper]
    assert wrap(ScoreFunction(GeneralizedAdvantage(Critic(Wrong()), decay=0.5))).account.biased
    assert not wrap(ScoreFunction(Constant(1.0))).account.biased
