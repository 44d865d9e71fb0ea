"""The programs whose gradients Pyro tests of its own bounds, with ours in their place.

Source: tests/infer/test_gradient.py and test_conjugate_gradients.py of Pyro.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import ppgrad
from ppgrad import ELBO
from ppgrad.testing import SUITE_FAILURE_RATE

FAILURE_RATE = SUITE_FAILURE_RATE / 100
DATA = torch.tensor([-0.5, 2.0])
ASCENT = {"loc": torch.tensor([-0.5, 2.0]), "scale": torch.tensor([-2.0])}
"""Of the bound of x ~ N(z, 1), z ~ N(0, 1) at the guide N(0, 1)."""

reparameterized = pytest.mark.parametrize("reparameterized", [True, False], ids=["reparam", "nonreparam"])
Programs = tuple[Callable[[], None], Callable[[], None]]


def normal(reparameterized: bool, loc: Any, scale: Any) -> dist.Normal:
    fn = dist.Normal(loc, scale)
    return fn if reparameterized else fn.has_rsample_(False)


def check_mean(programs: Programs, reference: dict[str, Tensor], replicates: int = 20_000, **options: Any) -> None:
    found = ppgrad.measure(ELBO(**options), *programs, replicates=replicates, reference=reference)
    components = sum(value.numel() for value in reference.values())
    for name, p_value in found.p_value.items():
        rounding = found.bias[name].abs() < 1e-5
        assert ((p_value > FAILURE_RATE / components) | rounding).all(), f"{name}: {found.mean[name]}"


@reparameterized
@pytest.mark.parametrize("subsample", [1, 2], ids=["subsample", "full"])
@pytest.mark.parametrize("kind", ["plate", "sequential"])
def test_subsample_gradient(kind: str, subsample: int, reparameterized: bool) -> None:
    def over_data(body: Callable[[Any, str], None]) -> None:
        plate = pyro.plate("data", 2, subsample_size=subsample)
        if kind == "sequential":
            for i in plate:
                body(i, f"_{int(i)}")
        else:
            with plate as places:
                body(places, "")

    def model() -> None:
        def datum(i: Any, suffix: str) -> None:
            z = pyro.sample(f"z{suffix}", normal(reparameterized, torch.tensor(0.0), 1.0))
            pyro.sample(f"x{suffix}", dist.Normal(z, 1.0), obs=DATA[i])

        over_data(datum)

    def guide() -> None:
        loc, scale = pyro.param("loc", torch.zeros(2)), pyro.param("scale", torch.ones(1))

        def datum(i: Any, suffix: str) -> None:
            pyro.sample(f"z{suffix}", normal(reparameterized, loc[i], scale.squeeze() if suffix else scale))

        over_data(datum)

    loops = kind == "sequential" and subsample == 1  # another datum is another site
    check_mean((model, guide), ASCENT, replicates=1500 if loops else 20_000)


def with_nuisances(particles: int, reparameterized: bool) -> Programs:
    """Data in a plate of particles, and three sites outside of it that have nothing to do with them."""

    def unrelated(name: str, loc: float, scale: float) -> None:
        pyro.sample(f"nuisance_{name}", normal(reparameterized, torch.tensor(loc), scale))

    def plates() -> tuple[Any, Any]:
        return pyro.plate("particles", particles, dim=-2), pyro.plate("data", 2, dim=-1)

    def model() -> None:
        outer, inner = plates()
        unrelated("a", 0.0, 1.0)
        with outer, inner:
            z = pyro.sample("z", normal(reparameterized, torch.zeros(()), 1.0))
        unrelated("b", 2.0, 3.0)
        with inner, outer:
            pyro.sample("x", dist.Normal(z, 1.0), obs=DATA)
        unrelated("c", 4.0, 5.0)

    def guide() -> None:
        loc, scale = pyro.param("loc", torch.zeros(2)), pyro.param("scale", torch.ones(1))
        outer, inner = plates()
        unrelated("c", 4.0, 5.0)
        with outer, inner:
            pyro.sample("z", normal(reparameterized, loc, scale))
        unrelated("b", 2.0, 3.0)
        unrelated("a", 0.0, 1.0)

    return model, guide


@reparameterized
def test_a_large_plate_beside_unrelated_sites(reparameterized: bool) -> None:
    """One gradient, for particles written as a plate average out where no other slice's cost is in it."""
    particles = 200_000
    one = ppgrad.measure(ELBO(), *with_nuisances(1, reparameterized), replicates=10_000, reference=ASCENT)
    found = ppgrad.gradient(ELBO(), *with_nuisances(particles, reparameterized), seed=1)
    for name, exact in ASCENT.items():
        z = (found[name] / particles - exact) / (one.variance[name] / particles).sqrt()
        assert (2 * stats.norm.sf(z.abs()) > FAILURE_RATE / 3).all(), f"{name}: {found[name] / particles}"


@reparameterized
def test_particles(reparameterized: bool) -> None:
    check_mean(with_nuisances(1, reparameterized), ASCENT, replicates=200, num_particles=500)


def before_a_global_site(count: int, reparameterized: bool) -> Programs:
    """Local sites in a plate, then a site outside of it that nothing reads."""

    def model() -> None:
        with pyro.plate("data", count):
            z = pyro.sample("z", normal(reparameterized, torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.5))
        pyro.sample("after", normal(reparameterized, torch.tensor(4.0), 5.0))

    def guide() -> None:
        with pyro.plate("data", count):
            pyro.sample("z", normal(reparameterized, pyro.param("loc", torch.zeros(())), 1.0))
        pyro.sample("after", normal(reparameterized, torch.tensor(4.0), 5.0))

    return model, guide


@reparameterized
def test_a_global_site_after_a_plate(reparameterized: bool) -> None:
    count, exact = 200_000, {"loc": torch.tensor(0.5)}
    one = ppgrad.measure(ELBO(), *before_a_global_site(1, reparameterized), replicates=10_000, reference=exact)
    found = ppgrad.gradient(ELBO(), *before_a_global_site(count, reparameterized), seed=2)["loc"] / count
    z = (found - 0.5) / (one.variance["loc"] / count).sqrt()
    assert 2 * stats.norm.sf(abs(z)) > FAILURE_RATE


def gaussian_chain(length: int, reparameterized: bool) -> tuple[Programs, dict[str, Tensor]]:
    """z_1, …, z_N, data of z_N; the guide is the posterior, drawn from z_N back to z_1."""
    data, mean, precisions = torch.tensor([-0.1, 0.8, 0.4, 1.3]), 0.2, [1.5 + 0.4 * k for k in range(length + 1)]
    variances = torch.cumsum(1 / torch.tensor(precisions), 0)[:length]
    initial = {}
    for k in range(length):
        below = precisions[length] * len(data) if k == length - 1 else precisions[k + 1]
        total = 1 / variances[k] + below
        told = precisions[length] * data.sum() if k == length - 1 else 0.0
        initial[f"loc_{k}"] = (mean / variances[k] + told) / total
        initial[f"log_scale_{k}"] = -0.5 * total.log()
        if k < length - 1:
            initial[f"kappa_{k}"] = below / total

    def model() -> None:
        z = torch.tensor(mean)
        for k in range(length):
            z = pyro.sample(f"z_{k}", normal(reparameterized, z, precisions[k] ** -0.5))
        with pyro.plate("data", len(data)):
            pyro.sample("x", dist.Normal(z, precisions[length] ** -0.5), obs=data)

    def guide() -> None:
        p = {name: pyro.param(name, value) for name, value in initial.items()}
        z = torch.zeros(())
        for k in reversed(range(length)):
            loc = p[f"loc_{k}"] + (p[f"kappa_{k}"] * z if k < length - 1 else 0.0)
            z = pyro.sample(f"z_{k}", normal(reparameterized, loc, p[f"log_scale_{k}"].exp()))

    return (model, guide), {name: torch.zeros(()) for name in initial}


@reparameterized
@pytest.mark.parametrize("length", [3, 5])
def test_at_the_posterior_of_a_conjugate_chain_the_gradient_is_zero(length: int, reparameterized: bool) -> None:
    check_mean(*gaussian_chain(length, reparameterized))


@pytest.mark.parametrize("length", [3])
def test_away_from_it_it_is_not(length: int) -> None:
    (model, guide), zero = gaussian_chain(length, False)
    with pytest.raises(AssertionError):
        check_mean((lambda: pyro.poutine.scale(model, 1.5)(), guide), zero)
