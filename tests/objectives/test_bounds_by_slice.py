"""Bounds by importance weights over plates: weights of each slice where slices share no draw, scales outside."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import ppgrad
from ppgrad import (
    ARM,
    IWELBO,
    VIMCO,
    DisARM,
    DReG,
    LeaveOneOut,
    LocalExpectation,
    MeasureValued,
    Pathwise,
    RenyiELBO,
    ScoreFunction,
    UnorderedSet,
    Unsupported,
    VarGrad,
)
from ppgrad.testing.problems import parameters
from tests.objectives.plated_programs import plated_program

DATA = torch.tensor([0.7, -1.2, 2.1])
K = 2


def bernoulli_model() -> None:
    with pyro.plate("n", len(DATA)):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=DATA)


def bernoulli_guide() -> None:
    logits = parameters({"l": [0.3, -0.2, 0.5]})["l"]
    with pyro.plate("n", len(DATA)):
        pyro.sample("z", dist.Bernoulli(logits=logits))


def exact_by_slice(sharpness: float) -> Tensor:
    """∇ Σ_n E[(1/s) log (1/K) Σ_k w_nk^s], each datum by enumeration of its K draws."""
    logits = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
    total = torch.zeros(())
    for n, x in enumerate(DATA):
        for zs in itertools.product((0.0, 1.0), repeat=K):
            z = torch.tensor(zs)
            q = dist.Bernoulli(logits=logits[n]).log_prob(z)
            gain = dist.Bernoulli(0.4).log_prob(z) + dist.Normal(2.0 * z, 1.0).log_prob(x) - q
            total = total + q.sum().exp() * ((sharpness * gain).logsumexp(0) - math.log(K)) / sharpness
    (gradient,) = torch.autograd.grad(total, [logits])
    return gradient


BOUNDS: dict[str, tuple[Callable[..., ppgrad.Objective], float]] = {
    "iwelbo": (IWELBO, 1.0),
    "renyi": (lambda *args, **options: RenyiELBO(*args, alpha=0.5, **options), 0.5),
}


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(
    "estimator",
    [ScoreFunction(), ScoreFunction(VIMCO()), DisARM(), ARM(), LocalExpectation(), MeasureValued(), UnorderedSet()],
    ids=repr,
)
def test_the_gradient_is_that_of_the_sum_of_bounds(bound: str, estimator: ppgrad.Estimator) -> None:
    kind, sharpness = BOUNDS[bound]
    objective = kind(estimator, num_importance=K, num_particles=2)
    found = ppgrad.measure(
        objective, bernoulli_model, bernoulli_guide, replicates=6000, reference={"l": exact_by_slice(sharpness)}
    )
    assert float(found.p_value["l"].min()) > 1e-7
    assert objective.weights == "of each slice of n"
    assert repr(objective).endswith("# weights: of each slice of n")


def test_leave_one_out_compares_particles_slice_by_slice() -> None:
    objective = IWELBO(ScoreFunction(LeaveOneOut()), num_importance=K, num_particles=3)
    found = ppgrad.measure(
        objective, bernoulli_model, bernoulli_guide, replicates=6000, reference={"l": exact_by_slice(1.0)}
    )
    assert float(found.p_value["l"].min()) > 1e-7


def gaussian(guide_mean: float, guide_scale: float, data: Tensor) -> tuple[Callable[[], None], Callable[[], None]]:
    def model() -> None:
        with pyro.plate("n", len(data)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=data)

    def guide() -> None:
        p = parameters({"m": guide_mean, "s": guide_scale})
        with pyro.plate("n", len(data)):
            pyro.sample("z", dist.Normal(p["m"], p["s"]))

    return model, guide


@pytest.mark.parametrize("estimator", [Pathwise(), DReG()], ids=repr)
def test_pathwise_estimators_agree_with_the_bounds_one_by_one(estimator: ppgrad.Estimator) -> None:
    model, guide = gaussian(0.3, 1.4, DATA)
    plated = ppgrad.measure(IWELBO(estimator, num_importance=4), model, guide, replicates=8000)
    apart = [
        ppgrad.measure(IWELBO(Pathwise(), num_importance=4), *gaussian(0.3, 1.4, x[None]), replicates=8000, seed=n)
        for n, x in enumerate(DATA)
    ]
    for name in ("m", "s"):
        difference = float(plated.mean[name] - sum(one.mean[name] for one in apart))
        error = float((plated.mcse[name] ** 2 + sum(one.mcse[name] ** 2 for one in apart)) ** 0.5)
        assert 2 * stats.norm.sf(abs(difference) / error) > 1e-6, name


def bound_and_error(objective: ppgrad.Objective, model: object, guide: object, count: int = 200) -> tuple[float, float]:
    values = torch.tensor([-objective.loss(model, guide) for _ in range(count)], dtype=torch.double)
    return float(values.mean()), float(values.std() / count**0.5)


def test_over_independent_data_it_is_as_tight_as_datum_by_datum() -> None:
    pyro.set_rng_seed(0)
    data = torch.randn(50)
    model, guide = gaussian(0.0, 1.5, data)
    evidence = float(dist.Normal(0.0, 2**0.5).log_prob(data).sum())
    bound, error = bound_and_error(IWELBO(num_importance=64), model, guide)
    joint, _ = bound_and_error(IWELBO(num_importance=64, per="joint"), model, guide, 50)
    assert evidence - 2 < bound < evidence + 5 * error
    assert joint < bound - 10


def test_a_subsampled_plate_keeps_its_scale_outside() -> None:
    pyro.set_rng_seed(0)
    data = torch.linspace(-1, 1, 100)

    def model() -> None:
        with pyro.plate("n", 100, subsample_size=10) as i:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=data[i])

    def guide() -> None:
        with pyro.plate("n", 100, subsample_size=10):
            pyro.sample("z", dist.Normal(parameters({"m": 0.1})["m"], 1.0))

    evidence = float(dist.Normal(0.0, 2**0.5).log_prob(data).sum())
    bound, error = bound_and_error(IWELBO(num_importance=16), model, guide, 600)
    assert bound < evidence + 5 * error
    assert bound > evidence - 2
    renyi, error = bound_and_error(RenyiELBO(alpha=0.5, num_importance=16), model, guide, 600)
    assert renyi < bound + 5 * error


def test_a_global_latent_couples_the_slices() -> None:
    program = next(program for program in map(plated_program, range(50)) if program.is_global)
    with pytest.raises(Unsupported, match=r"per='slice'\): 'g' lies outside of plate '(inner|outer)', and its slices"):
        IWELBO(per="slice").loss(program.model, program.guide)


def test_slices_that_meet_have_one_weight() -> None:
    def model() -> None:
        with pyro.plate("n", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.flip(0), 1.0), obs=DATA)

    def guide() -> None:
        with pyro.plate("n", 3):
            pyro.sample("z", dist.Normal(parameters({"m": 0.1})["m"], 1.0))

    objective = IWELBO(num_importance=4)
    with pytest.warns(ppgrad.CoupledSlices):
        objective.loss(model, guide)
    assert objective.weights == "joint"


def test_per_is_a_word() -> None:
    with pytest.raises(ppgrad.InvalidInput, match="'slice', 'joint' or None"):
        IWELBO(per="datum")


def test_vargrad_has_a_variance_for_each_slice() -> None:
    reference = ppgrad.exact_gradient(ppgrad.ELBO(), bernoulli_model, bernoulli_guide)
    found = ppgrad.measure(
        VarGrad(num_particles=4), bernoulli_model, bernoulli_guide, replicates=6000, reference=reference
    )
    alike = ppgrad.measure(
        ppgrad.ELBO(ScoreFunction(LeaveOneOut()), num_particles=4), bernoulli_model, bernoulli_guide, replicates=6000
    )
    assert float(found.p_value["l"].min()) > 1e-7
    assert float(found.variance["l"].sum()) < 1.2 * float(alike.variance["l"].sum())
