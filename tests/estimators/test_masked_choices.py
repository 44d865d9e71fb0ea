"""Choices masked by a logit of −∞, −1e8 or −50, or by a probability of 0: the exact gradient, which is 0 for them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import (
    ARM,
    ELBO,
    IWELBO,
    REBAR,
    DisARM,
    Enumerate,
    ExpectedReturn,
    KLRegularized,
    LocalExpectation,
    MaxEntReturn,
    MeasureValued,
    MuProp,
    ScoreFunction,
    StochasticPerturbation,
    SumAndSample,
    UnorderedSet,
)
from ppgrad.core import Estimator, Unsupported
from ppgrad.measurement import measure
from ppgrad.objectives import Objective
from ppgrad.testing import SUITE_FAILURE_RATE, estimator_examples
from ppgrad.testing.problems import parameters

MASKS = {"first": [0], "middle": [1], "last": [3], "all but one": [0, 1, 3]}
FILLS = (-math.inf, -1e8, -50.0)
START = [0.3, -0.4, 0.9, 0.1]
REWARDS = [1.0, 3.0, -2.0, 0.5]
PRIOR = [0.1, 0.2, -0.3, 0.4]
REPLICATES = 600
ALPHA, COEFFICIENT = 0.7, 0.5


def rows() -> tuple[Tensor, Tensor]:
    """For each mask and fill, which choices are masked, and by what."""
    cells = [*itertools.product(MASKS.values(), FILLS)]
    masked = torch.zeros(len(cells), 4, dtype=torch.bool)
    for row, (places, _) in zip(masked, cells, strict=True):
        row[places] = True
    return masked, torch.tensor([[fill] for _, fill in cells])


def with_mask(logits: Tensor, only: int | None = None) -> Tensor:
    """The logits of each row, or of one, where they are masked filled with its fill."""
    masked, fills = rows()
    chosen = torch.where(masked, fills, logits)
    return chosen if only is None else chosen[only]


def given(logits: Tensor, site: str) -> dist.TorchDistribution:
    if site == "probabilities":
        return dist.Categorical(probs=logits.softmax(-1))
    return dist.OneHotCategorical(logits=logits) if site == "one-hot" else dist.Categorical(logits=logits)


def looked_up(table: list[float], value: Tensor, site: str) -> Tensor:
    numbers = torch.tensor(table)
    if site == "one-hot":
        return (value * numbers).sum(-1) ** 2
    return numbers.index_select(0, value.reshape(-1)).reshape(value.shape) ** 2


def start() -> dict[str, object]:
    return {"l": [START] * len(rows()[0])}


def control(site: str) -> tuple[Callable[[], None], None]:
    def program() -> None:
        logits = with_mask(parameters(start())["l"])
        with pyro.plate("rows", len(logits)):
            ppgrad.reward("r", looked_up(REWARDS, ppgrad.policy("k", given(logits, site)), site))

    return program, None


def inference(site: str, only: int | None = None) -> tuple[Callable[[], None], Callable[[], None]]:
    """Prior and guide are masked alike, as where some values make no sense; all rows, or one."""

    def model() -> None:
        prior = with_mask(torch.tensor(PRIOR), only)
        with pyro.plate("rows", len(rows()[0]) if only is None else 1):
            k = pyro.sample("k", given(prior, site))
            pyro.sample("x", dist.Normal(looked_up(REWARDS, k, site), 3.0), obs=torch.tensor(0.5))

    def guide() -> None:
        logits = with_mask(parameters(start() if only is None else {"l": START})["l"], only)
        with pyro.plate("rows", len(rows()[0]) if only is None else 1):
            pyro.sample("k", given(logits, site))

    return model, guide


def log_weights(logits: Tensor) -> Tensor:
    """log p(x, k) − log q(k), 0 for what cannot happen."""
    prior = with_mask(torch.tensor(PRIOR)).log_softmax(-1)
    likelihood = dist.Normal(torch.tensor(REWARDS) ** 2, 3.0).log_prob(torch.tensor(0.5))
    possible = logits > -math.inf
    return torch.where(possible, prior - logits, 0.0) + likelihood


def exact_value(objective: str, leaf: Tensor) -> Tensor:
    """The objective, summed over all rows by hand."""
    logits = with_mask(leaf).log_softmax(-1)
    possible = logits > -math.inf
    p, safe = logits.exp(), torch.where(possible, logits, 0.0)
    gain = torch.tensor(REWARDS) ** 2
    if objective == "ELBO":
        gain = log_weights(logits)
    elif objective.startswith("MaxEntReturn"):
        gain = gain - ALPHA * safe
    elif objective == "KLRegularized":
        reference = with_mask(torch.tensor(PRIOR)).log_softmax(-1)
        gain = gain - COEFFICIENT * torch.where(possible, safe - reference, 0.0)
    elif objective == "IWELBO":
        w = log_weights(logits)
        bounds = torch.logaddexp(w.unsqueeze(-1), w.unsqueeze(-2)) - math.log(2)
        return (p.unsqueeze(-1) * p.unsqueeze(-2) * bounds).sum()
    return (p * gain).sum()


@functools.cache
def exact(objective: str) -> Tensor:
    leaf = torch.tensor([START] * len(rows()[0])).requires_grad_()
    (gradient,) = torch.autograd.grad(exact_value(objective, leaf), leaf)
    masked, _ = rows()
    assert bool((gradient[masked] == 0).all())
    return gradient


OBJECTIVES: dict[str, Callable[[Estimator, str], Objective]] = {
    "ExpectedReturn": lambda e, site: ExpectedReturn(e, num_particles=2),
    "MaxEntReturn": lambda e, site: MaxEntReturn(e, temperature=ALPHA, num_particles=2),
    "MaxEntReturn, exact": lambda e, site: MaxEntReturn(e, temperature=ALPHA, exact=True, num_particles=2),
    "KLRegularized": lambda e, site: KLRegularized(
        e,
        reference=lambda message: given(with_mask(torch.tensor(PRIOR)), site),
        coefficient=COEFFICIENT,
        num_particles=2,
    ),
    "ELBO": lambda e, site: ELBO(e, num_particles=2),
}
CELLS = [(objective, "one-hot") for objective in OBJECTIVES]
CELLS += [(objective, site) for objective in ("MaxEntReturn", "ELBO") for site in ("index", "probabilities")]
# Rows of their own for IWELBO, since the elements of a plate share its bound.
ALONE = [("one-hot", 0), ("index", 9), ("probabilities", 4), ("one-hot", 10)]
FAILURE_RATE = SUITE_FAILURE_RATE / (len(estimator_examples()) * (len(CELLS) + len(ALONE)))


def check(estimator: Estimator, objective: Objective, program: Any, gradient: Tensor) -> str:
    """What the cell is: 'refuses' by name, 'is biased' as declared and finite, or 'conforms'."""
    try:
        found = measure(objective, *program, replicates=REPLICATES, reference={"l": gradient})
    except Unsupported as refusal:
        return "refuses" if "'k'" in str(refusal) else f"refuses without the site: {refusal}"
    assert bool(torch.isfinite(found.draws["l"]).all())
    if estimator.account.biased:
        return "is biased"
    rounding = abs(found.bias["l"]) <= 1e-5 * (1 + abs(gradient))
    passed = (found.p_value["l"] > FAILURE_RATE / gradient.numel()) | rounding
    assert bool(passed.all()), f"{found.mean['l']} for {gradient}, p = {found.p_value['l']}"
    return "conforms"


@pytest.mark.parametrize("estimator", estimator_examples(), ids=lambda e: repr(e).replace(" ", ""))
def test_a_masked_choice_has_no_gradient_and_spoils_no_other(estimator: Estimator) -> None:
    outcomes = []
    for objective, site in CELLS:
        program = inference(site) if objective == "ELBO" else control(site)
        pyro.clear_param_store()
        outcomes.append(check(estimator, OBJECTIVES[objective](estimator, site), program, exact(objective)))
    for site, row in ALONE:
        pyro.clear_param_store()
        bound = IWELBO(estimator, num_importance=2, num_particles=2)
        outcomes.append(check(estimator, bound, inference(site, row), exact("IWELBO")[row]))
    assert {*outcomes} <= {"refuses", "is biased", "conforms"}


NEVER = [math.nan, 1.0, -2.0, math.inf]
"""Rewards, of which those of masked choices make no sense."""


@pytest.mark.parametrize("site", ["index", "probabilities"])
@pytest.mark.parametrize(
    "estimator",
    [
        Enumerate(),
        LocalExpectation(),
        MeasureValued(),
        MeasureValued(coupled=False),
        StochasticPerturbation(),
        SumAndSample(k=2),
        UnorderedSet(k=3),
    ],
    ids=repr,
)
def test_a_program_is_not_run_at_what_cannot_happen(estimator: Estimator, site: str) -> None:
    masked = torch.tensor([True, False, False, True])

    def program() -> None:
        logits = parameters({"l": START})["l"].masked_fill(masked, -math.inf)
        k = ppgrad.policy("k", given(logits, site))
        factor = parameters({"w": 1.5})["w"].sqrt()
        ppgrad.reward("r", factor * torch.tensor(NEVER).index_select(0, k.reshape(1)).squeeze(0))

    leaf, w = torch.tensor(START).requires_grad_(), torch.tensor(1.5).requires_grad_()
    value = w.sqrt() * (leaf[1:3].softmax(-1) * torch.tensor(NEVER[1:3])).sum()
    exact_ones = dict(zip(("l", "w"), torch.autograd.grad(value, (leaf, w)), strict=True))
    found = measure(ExpectedReturn(estimator), program, replicates=REPLICATES, reference=exact_ones)
    for name, bias in found.bias.items():
        assert bool(((found.p_value[name] > SUITE_FAILURE_RATE / 100) | (abs(bias) < 1e-5)).all())


ALWAYS = [1e8, -1e8, 50.0, -50.0, 0.3]
"""Logits, of which only the last is learned."""


ESTIMATORS_OF_YES_OR_NO = (
    ScoreFunction(),
    Enumerate(),
    LocalExpectation(),
    StochasticPerturbation(),
    UnorderedSet(),
    ARM(),
    DisARM(),
    MuProp(),
    REBAR(),
    MeasureValued(coupled=False),
)


def yes_or_no(kind: str, logit: Tensor) -> dist.TorchDistribution:
    logits = torch.cat([torch.tensor(ALWAYS[:-1]), logit.reshape(1)])
    return {
        "Bernoulli": lambda: dist.Bernoulli(logits=logits),
        "Bernoulli of probs": lambda: dist.Bernoulli(probs=logits.sigmoid()),
        "Binomial": lambda: dist.Binomial(2, logits=logits),
        "Binomial of probs": lambda: dist.Binomial(2, probs=logits.sigmoid()),
    }[kind]()


@pytest.mark.parametrize("kind", ["Bernoulli", "Bernoulli of probs", "Binomial", "Binomial of probs"])
@pytest.mark.parametrize(
    "estimator",
    ESTIMATORS_OF_YES_OR_NO,
    ids=repr,
)
def test_elements_that_are_sure_spoil_no_other(estimator: Estimator, kind: str) -> None:
    def program() -> None:
        k = ppgrad.policy("k", yes_or_no(kind, parameters({"l": 0.3})["l"]).to_event(1))
        ppgrad.cost("f", 0.1 * (k.sum() - 2.5) ** 2)

    leaf = torch.tensor(0.3).requires_grad_()
    count = 2 if kind.startswith("Binomial") else 1
    values = torch.arange(count + 1.0)
    gain = -0.1 * (values + 2 * count - 2.5) ** 2 - ALPHA * dist.Binomial(count, logits=leaf).log_prob(values)
    expected = (dist.Binomial(count, logits=leaf).log_prob(values).exp() * gain).sum()
    exact_one = {"l": torch.autograd.grad(expected, leaf)[0]}
    try:
        found = measure(MaxEntReturn(estimator, temperature=ALPHA), program, replicates=REPLICATES, reference=exact_one)
    except Unsupported:
        assert count == 2
        return
    assert bool((found.p_value["l"] > SUITE_FAILURE_RATE / 100) | (abs(found.bias["l"]) < 1e-5))
