"""Group advantages: RLOO, GRPO and Dr. GRPO."""

from __future__ import annotations

import itertools

import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import ppgrad
from ppgrad import ExpectedReturn, GroupRelative, InvalidInput, LeaveOneOut, Pathwise, ScoreFunction, Unsupported
from ppgrad.objectives.group_relative import group_advantage
from ppgrad.testing import all_problems
from ppgrad.testing.problems import parameters

FAILURE_RATE = 1e-7
PROBLEM = all_problems()["group_relative"]
GROUP = 3


def prompts() -> None:
    """Two prompts, an easy and a hard one: an answer to each is right or wrong."""
    p = parameters({"logits": [2.0, -1.0]})
    with ppgrad_plate():
        answer = ppgrad.policy("answer", dist.Bernoulli(logits=p["logits"]))
        ppgrad.reward("right", answer)


def ppgrad_plate() -> object:
    import pyro

    return pyro.plate("prompts", 2)


def expected(advantage: str) -> torch.Tensor:
    """E of (1/G) Σ A_i ∇ log π over all outcomes of a group, for each prompt."""
    logits = torch.tensor([2.0, -1.0])
    q, total = torch.sigmoid(logits), torch.zeros(2)
    for outcome in itertools.product((0.0, 1.0), repeat=GROUP):
        rewards = torch.tensor(outcome).unsqueeze(-1).expand(GROUP, 2)
        chance = torch.where(rewards > 0, q, 1 - q).prod(0)
        total += chance * (group_advantage(rewards, advantage) * (rewards - q)).mean(0)
    return total


@pytest.mark.parametrize("advantage", ["rloo", "grpo", "dr_grpo"])
def test_the_mean_is_what_enumeration_says(advantage: str) -> None:
    objective = GroupRelative(advantage=advantage, num_particles=GROUP)
    found = ppgrad.measure(objective, prompts, replicates=20_000)
    z = (found.mean["logits"] - expected(advantage)) / found.mcse["logits"]
    assert float(2 * stats.norm.sf(float(z.abs().max()))) > FAILURE_RATE
    is_biased = bool((found.p_value["logits"] < FAILURE_RATE).any())
    assert is_biased == objective.facts.biased == (advantage != "rloo")
    torch.testing.assert_close(
        found.reference["logits"], torch.sigmoid(torch.tensor([2.0, -1.0])) * torch.sigmoid(-torch.tensor([2.0, -1.0]))
    )


def test_dr_grpo_is_rloo_but_for_a_factor() -> None:
    gradients = [
        ppgrad.gradient(GroupRelative(advantage=a, num_particles=GROUP), prompts, seed=1)["logits"]
        for a in ("rloo", "dr_grpo")
    ]
    torch.testing.assert_close(gradients[1], gradients[0] * (GROUP - 1) / GROUP)


def test_rloo_is_the_leave_one_out_baseline() -> None:
    baseline = ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=4)
    for seed in range(5):
        ours = ppgrad.gradient(GroupRelative(num_particles=4), PROBLEM.model, seed=seed)
        theirs = ppgrad.gradient(baseline, PROBLEM.model, seed=seed)
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name])


def test_grpo_divides_by_the_standard_deviation() -> None:
    values = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    torch.testing.assert_close(
        group_advantage(values, "grpo"), torch.tensor([[-2 / 2.0001, 0.0], [0.0, 0.0], [2 / 2.0001, 0.0]])
    )


def test_the_table_says_biased_and_the_reference_is_of_the_return() -> None:
    comparison = ppgrad.compare(
        {
            "grpo": GroupRelative(advantage="grpo", num_particles=4),
            "rloo": GroupRelative(num_particles=4),
            "baseline": ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=4),
        },
        prompts,
        replicates=2000,
    )
    table = comparison.summary()
    labels = table["biased"].groupby(level=0).first() if table.index.nlevels > 1 else table["biased"]
    assert labels["grpo"] == "biased"
    assert labels["rloo"] == labels["baseline"] == ""
    assert comparison.reference_kind == "exact"


def test_bad_input() -> None:
    with pytest.raises(InvalidInput, match="write 'rloo', 'grpo' or 'dr_grpo'"):
        GroupRelative(advantage="ppo")
    with pytest.raises(InvalidInput, match="two runs or more"):
        GroupRelative(num_particles=1)
    for estimator in (Pathwise(), ScoreFunction(LeaveOneOut())):
        with pytest.raises(Unsupported, match="cannot serve site 'x'"):
            ppgrad.gradient(GroupRelative(estimator), all_problems()["normal_chain"].model)
