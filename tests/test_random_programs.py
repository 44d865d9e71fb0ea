"""Random programs, random estimators at each site: the mean is the exact gradient."""

from __future__ import annotations

import random
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import CannotBeExact, ExpectedReturn
from ppgrad.core import Estimator, SiteInfo
from ppgrad.measurement import exact_gradient, measure
from ppgrad.testing import SUITE_FAILURE_RATE, estimator_examples

PROGRAMS = 300
BLOCKS = 20
FAILURE_RATE = SUITE_FAILURE_RATE / (10 * PROGRAMS)

KINDS = {
    "bernoulli": dist.Bernoulli(0.4),
    "categorical": dist.Categorical(torch.tensor([0.2, 0.3, 0.5])),
    "normal": dist.Normal(0.3, 0.6),
}


def unbiased(fn: dist.TorchDistribution) -> list[Estimator]:
    """Every example of every unbiased estimator and baseline that can serve ``fn``."""
    info = SiteInfo("x", fn, frozenset(), num_particles=2, has_context=False)
    found = [e for e in estimator_examples() if not e.account.biased and e.refuses(info) is None]
    assert len(found) >= 15
    return found


CHOICES = {kind: unbiased(fn) for kind, fn in KINDS.items()}


def random_program(seed: int) -> tuple[Callable[[], None], dict[str, Estimator]]:
    """A chain of up to five sites, some in a plate of two, each feeding the next, with costs in between."""
    source = random.Random(seed)
    depth = source.randint(2, 5)
    normals = 0
    steps = []
    for i in range(depth):
        kind = source.choice(list(CHOICES))
        in_plate = source.random() < 0.35
        if kind == "normal":
            normals += 1
            if normals > 2:  # quadrature in more dimensions is too large
                kind = "bernoulli"
            in_plate = in_plate and normals == 1 and i > depth - 2
        if steps and steps[-1][2]:
            in_plate = False  # what has seen every slice may come back into the plate by a random site alone
        weights = [source.gauss(0, 0.7) for _ in range(4)]
        steps.append((f"x_{i}", kind, in_plate, weights, source.random() < 0.6))
    ends_with = source.gauss(0, 1)
    sites = {name: source.choice(CHOICES[kind]) for name, kind, _, _, _ in steps}

    def program() -> None:
        plate = pyro.plate("n", 2)
        state = torch.tensor(0.3)
        for name, kind, in_plate, (a, b, c, d), pays in steps:
            theta = pyro.param(f"theta_{name}", torch.tensor(a))
            drive = theta + b * state
            if in_plate:
                with plate:
                    value = _draw(name, kind, drive + torch.tensor([0.0, 0.4]), c)
                    if pays:
                        ppgrad.cost(f"c_{name}", (value - d) ** 2)
                state = 0.5 * state + value.sum(-1)
            else:
                value = _draw(name, kind, drive, c)
                state = 0.5 * state + value
                if pays:
                    ppgrad.cost(f"c_{name}", d * state + 0.3 * value * state)
        ppgrad.reward("end", -0.2 * state**2 + ends_with * state)

    return program, sites


def _draw(name: str, kind: str, drive: Tensor, extra: float) -> Tensor:
    if kind == "bernoulli":
        return ppgrad.policy(name, dist.Bernoulli(logits=drive))
    if kind == "categorical":
        logits = torch.stack([drive, -drive, extra * drive], -1)
        return ppgrad.policy(name, dist.Categorical(logits=logits)).to(drive.dtype)
    return ppgrad.policy(name, dist.Normal(drive, 0.5 + abs(extra)))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_programs(block: int, caplog: pytest.LogCaptureFixture) -> None:
    checked = 0
    for seed in range(block * (PROGRAMS // BLOCKS), (block + 1) * (PROGRAMS // BLOCKS)):
        program, sites = random_program(seed)
        torch.set_default_dtype(torch.float64)
        try:
            exact = exact_gradient(ExpectedReturn(), program)
        except CannotBeExact:
            continue  # too large a product of sites; the count below sees to it that these are few
        finally:
            torch.set_default_dtype(torch.float32)
        result = measure(
            ExpectedReturn(sites=sites, num_particles=2), program, replicates=3000, seed=seed, reference=exact
        )
        for name, p_value in result.p_value.items():
            rounding = abs(float(result.bias[name])) < 1e-4 * (1 + abs(float(exact[name])))
            assert p_value > FAILURE_RATE or rounding, f"program {seed}, {sites}: {name}, p = {p_value}"
        checked += 1
    assert checked >= 0.8 * PROGRAMS // BLOCKS
    assert not caplog.text, "vmap carries each of these programs"
