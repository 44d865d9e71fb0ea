"""Random programs, random estimators at each site: the mean is the exact gradient."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
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
EACH = PROGRAMS // BLOCKS
FAILURE_RATE = SUITE_FAILURE_RATE / (10 * PROGRAMS)

KINDS = {
    "bernoulli": dist.Bernoulli(0.4),
    "categorical": dist.Categorical(torch.tensor([0.2, 0.3, 0.5])),
    "normal": dist.Normal(0.3, 0.6),
    "two bernoullis": dist.Bernoulli(torch.tensor([0.4, 0.7])).to_event(1),
    "one-hot": dist.OneHotCategorical(torch.tensor([0.2, 0.3, 0.5])),
}
MASKS = ("none", "none", "all", "part", "inside")
PLATES = ("none", "none", "n", "n in m")


@dataclass(frozen=True)
class Step:
    """One site, and what is paid for it: scaled, in plates, with a mask around the distribution or within."""

    name: str
    kind: str
    plates: str
    mask: str
    scale: float
    weights: tuple[float, float, float, float]
    pays: bool


def unbiased(fn: dist.TorchDistribution) -> list[Estimator]:
    """Every example of every unbiased estimator and baseline that can serve ``fn``."""
    info = SiteInfo("x", fn, frozenset(), num_particles=2, has_context=False)
    found = [e for e in estimator_examples() if not e.account.biased and e.refuses(info) is None]
    assert len(found) >= 15
    return found


CHOICES = {kind: unbiased(fn) for kind, fn in KINDS.items()}


def random_steps(source: random.Random) -> list[Step]:
    """Up to five sites of which each feeds the next."""
    depth = source.randint(2, 5)
    normals = 0
    steps: list[Step] = []
    for i in range(depth):
        kind, plates = source.choice(list(KINDS)), source.choice(PLATES)
        if kind == "normal":
            normals += 1
            if normals > 2:  # quadrature in more dimensions is too large
                kind = "bernoulli"
            elif normals == 2 or i < depth - 1:
                plates = "none"
        if steps and steps[-1].plates != "none":
            plates = "none"  # what has seen every slice may come back into the plate by a random site alone
        if plates == "n in m" and kind != "normal":
            kind = "bernoulli"  # four elements of more values are too many to enumerate
        a, b, c, d = (source.gauss(0, 0.7) for _ in range(4))
        scale = source.choice((1.0, 1.0, 2.5))
        steps.append(Step(f"x_{i}", kind, plates, source.choice(MASKS), scale, (a, b, c, d), source.random() < 0.6))
    return steps


def random_program(seed: int) -> tuple[Callable[[], None], dict[str, Estimator]]:
    """A program, and an estimator for each of its sites."""
    source = random.Random(seed)
    steps = random_steps(source)
    ends_with = source.gauss(0, 1)
    sites = {step.name: source.choice(CHOICES[step.kind]) for step in steps}

    def program() -> None:
        inner, outer = pyro.plate("n", 2, dim=-1), pyro.plate("m", 2, dim=-2)
        offsets = {"none": torch.tensor(0.0), "n": torch.tensor([0.0, 0.4]), "n in m": torch.tensor([[0.0], [0.3]])}
        state = torch.tensor(0.3)
        for step in steps:
            a, b, c, d = step.weights
            theta = pyro.param(f"theta_{step.name}", torch.tensor(a))
            drive = theta + b * state + offsets[step.plates]
            if step.plates == "n in m":
                drive = drive + offsets["n"]
            with poutine.scale(scale=step.scale), ExitStack() as plates:
                if step.plates != "none":
                    plates.enter_context(inner)
                if step.plates == "n in m":
                    plates.enter_context(outer)
                value = _number(step.kind, ppgrad.policy(step.name, _masked(step, drive, c)), drive.dtype)
                if step.plates != "none":
                    if step.pays:
                        ppgrad.cost(f"c_{step.name}", (value - d) ** 2)
                    value = value.sum()
                    state = 0.5 * state + value
                else:
                    state = 0.5 * state + value
                    if step.pays:
                        ppgrad.cost(f"c_{step.name}", d * state + 0.3 * value * state)
        ppgrad.reward("end", -0.2 * state**2 + ends_with * state)

    return program, sites


def _masked(step: Step, drive: Tensor, extra: float) -> dist.TorchDistribution:
    """The site's distribution; a mask changes nothing that is drawn."""
    if step.kind == "two bernoullis":
        elements = dist.Bernoulli(logits=torch.stack([drive, extra - drive], -1))
        if step.mask == "inside":
            return elements.mask(torch.tensor([True, False])).to_event(1)
        fn = elements.to_event(1)
    elif step.kind == "bernoulli":
        fn = dist.Bernoulli(logits=drive)
    elif step.kind == "normal":
        fn = dist.Normal(drive, 0.5 + abs(extra))
    else:
        logits = torch.stack([drive, -drive, extra * drive], -1)
        fn = dist.Categorical(logits=logits) if step.kind == "categorical" else dist.OneHotCategorical(logits=logits)
    if step.mask == "part" and step.plates != "none":
        return fn.mask(torch.tensor([True, False]))
    return fn if step.mask in ("none", "inside") else fn.mask(step.mask == "all")


def _number(kind: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    if kind == "one-hot":
        return (value * torch.tensor([0.0, 1.0, 2.0], dtype=dtype)).sum(-1)
    return value.to(dtype).sum(-1) if kind == "two bernoullis" else value.to(dtype)


def test_the_generator_draws_everything() -> None:
    steps = [step for seed in range(PROGRAMS) for step in random_steps(random.Random(seed))]
    assert {step.kind for step in steps} == set(KINDS)
    assert {(step.kind, step.mask) for step in steps} == {(kind, mask) for kind in KINDS for mask in MASKS}
    assert {step.plates for step in steps} == set(PLATES)


@pytest.mark.filterwarnings("ignore:Plate:ppgrad.CoupledSlices")  # sums over a plate come back into it
@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_programs(block: int, caplog: pytest.LogCaptureFixture) -> None:
    checked, seed = 0, 1000 * block
    while checked < EACH:
        assert seed < 1000 * block + 3 * EACH, "most programs can be summed over"
        program, sites = random_program(seed)
        torch.set_default_dtype(torch.float64)
        try:
            exact = exact_gradient(ExpectedReturn(), program)
        except CannotBeExact:
            continue  # too large a product of sites: another one is drawn
        finally:
            torch.set_default_dtype(torch.float32)
            seed += 1
        result = measure(
            ExpectedReturn(sites=sites, num_particles=2), program, replicates=3000, seed=seed, reference=exact
        )
        for name, p_value in result.p_value.items():
            rounding = abs(float(result.bias[name])) < 1e-4 * (1 + abs(float(exact[name])))
            assert p_value > FAILURE_RATE or rounding, f"program {seed - 1}, {sites}: {name}, p = {p_value}"
        checked += 1
    assert not caplog.text, "vmap carries each of these programs"
