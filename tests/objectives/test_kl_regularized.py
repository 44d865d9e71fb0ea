"""KL terms as a reward and as a loss: what they really estimate."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn

import ppgrad
from ppgrad import (
    Estimator,
    InvalidAssignment,
    InvalidInput,
    KLRegularized,
    LocalExpectation,
    Pathwise,
    ScoreFunction,
)
from ppgrad.measurement.exact import _integrate
from ppgrad.testing.problems import parameters

FAILURE_RATE = 1e-7
# Minus the gradient of J in σ, at σ = 2 against N(0, 1); the truth is 1.5.
EXPECTED = {
    ("k1", "loss"): 0.0,
    ("k1", "reward"): 1.5,
    ("k2", "loss"): 1.5,
    ("k2", "reward"): (27 - 6 * math.log(2)) / 4,
    ("k3", "loss"): 0.375,
    ("k3", "reward"): 1.125,
}
REFERENCE = {"x": dist.Normal(0.0, 1.0)}


def wide() -> None:
    x = ppgrad.policy("x", dist.Normal(0.0, parameters({"sigma": 2.0})["sigma"]))
    ppgrad.reward("nothing", 0.0 * x)


@pytest.mark.parametrize("estimator", [ScoreFunction(), Pathwise()], ids=repr)
@pytest.mark.parametrize(("kind", "as_"), EXPECTED)
def test_each_term_estimates_what_its_label_says(kind: Any, as_: Any, estimator: Estimator) -> None:
    objective = KLRegularized(estimator, reference=REFERENCE, kind=kind, as_=as_)
    found = ppgrad.measure(objective, wide, replicates=20_000)
    z = (float(found.mean["sigma"]) + EXPECTED[kind, as_]) / float(found.mcse["sigma"])
    assert 2 * stats.norm.sf(abs(z)) > FAILURE_RATE
    # The reference is the gradient of the regularized return, whatever the term.
    assert float(found.reference["sigma"]) == pytest.approx(-1.5, rel=1e-4)
    found_biased = float(found.p_value["sigma"]) < FAILURE_RATE
    assert found_biased == (EXPECTED[kind, as_] != 1.5)
    assert objective.facts.biased or not found_biased


@pytest.mark.parametrize(("kind", "as_"), EXPECTED)
def test_each_terms_mean_by_quadrature(kind: Any, as_: Any) -> None:
    class Kept(KLRegularized):
        def with_choice(self, sites: Any, num_particles: int = 1) -> Any:
            other = super().with_choice(sites, num_particles)
            other.__dict__.update(kind=kind, as_=as_)
            return other

    gradient, _ = _integrate(Kept(reference=REFERENCE), wide, None, (), None, 64, seed=0)
    assert -float(gradient["sigma"]) == pytest.approx(EXPECTED[kind, as_], abs=2e-4)


def test_a_reference_network_reads_the_context_and_is_held_fixed() -> None:
    torch.manual_seed(0)
    policy, reference = nn.Linear(2, 3), nn.Linear(2, 3)

    def program(policy: nn.Module, reference: nn.Module) -> None:
        states = torch.tensor([[1.0, 0.5], [-0.3, 0.8]])
        with pyro.plate("n", 2):
            a = ppgrad.policy("a", dist.Categorical(logits=policy(states)), context=states)
            ppgrad.reward("r", (a == 1).float())

    objective = KLRegularized(
        LocalExpectation(), reference=lambda site: dist.Categorical(logits=reference(site["infer"]["context"]))
    )
    found = ppgrad.gradient(objective, program, args=(policy, reference), seed=0)
    assert not found["reference.weight"].any()
    states = torch.tensor([[1.0, 0.5], [-0.3, 0.8]])
    log_pi, log_ref = policy(states).log_softmax(-1), reference(states).log_softmax(-1).detach()
    value = (log_pi.exp() * (torch.tensor([0.0, 1.0, 0.0]) - log_pi + log_ref)).sum()
    exact = torch.autograd.grad(value, list(policy.parameters()))
    torch.testing.assert_close(found["policy.weight"], exact[0])
    torch.testing.assert_close(found["policy.bias"], exact[1])


def test_a_masked_action_has_no_divergence() -> None:
    def masked() -> None:
        p = parameters({"mu": 0.5})
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0).mask(torch.tensor([True, False])))
            ppgrad.reward("r", 0.0 * x)

    # With the path alone d/dmu of x² / 2 − (x − ⊥mu)² / 2 is mu, whatever the noise.
    found = ppgrad.gradient(KLRegularized(Pathwise(), reference=REFERENCE), masked, seed=0)
    assert float(found["mu"]) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "k4"}, "write 'k1', 'k2' or 'k3'"),
        ({"as_": "penalty"}, "write 'reward' or 'loss'"),
        ({"coefficient": -1.0}, "0 or more"),
        ({"coefficient": float("nan")}, "0 or more"),
        ({"reference": 3}, r"write \{glob: distribution\}"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        KLRegularized(**{"reference": REFERENCE, **options})


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ({}, InvalidAssignment, "matches no glob"),
        ({"x": dist.Normal(0.0, 1.0), "*": dist.Normal(0.0, 1.0)}, InvalidAssignment, "matches 2 globs"),
        ({"x": dist.Normal(0.0, 1.0), "y": dist.Normal(0.0, 1.0)}, InvalidAssignment, "'y' of reference= matches no"),
        ({"x": dist.Normal(torch.zeros(2), 1.0).to_event(1)}, InvalidInput, "event shape"),
        (lambda site: None, InvalidInput, "Write a Pyro distribution"),
    ],
)
def test_bad_references(reference: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ppgrad.gradient(KLRegularized(reference=reference), wide)
