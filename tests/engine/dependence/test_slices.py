"""One number inside of a plate: counted once a slice where it may be, an error where nobody can tell."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ELBO, ExpectedReturn, InvalidProgram, Pathwise, ScoreFunction

tensor = torch.tensor
ESTIMATORS = [Pathwise(), ScoreFunction(), ppgrad.MeasureValued()]


def mean():
    return pyro.param("m", tensor(1.0))


def cost_of_several():
    with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1):
        x = ppgrad.policy("x", dist.Normal(mean(), 1.0))
        ppgrad.cost("c", x.square().mean())


def sum_over_one_plate():
    with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1):
        x = ppgrad.policy("x", dist.Normal(mean(), 1.0))
        ppgrad.cost("c", x.square().sum(-1, keepdim=True))


def later_plate_of_the_same_size():
    with pyro.plate("rows", 3):
        x = ppgrad.policy("x", dist.Normal(mean(), 1.0).expand([3, 2]).to_event(1))
    with pyro.plate("rows again", 3):
        ppgrad.reward("c", x.max())


@pytest.mark.parametrize("program", [cost_of_several, sum_over_one_plate, later_plate_of_the_same_size])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("particles", [1, 20])
def test_a_number_that_mixes_slices_inside_of_their_plate_is_refused(program, estimator, particles):
    with pytest.raises(InvalidProgram, match=r"'c'.*plate '(rows|columns).*'x'"):
        ppgrad.gradient(ExpectedReturn(estimator, num_particles=particles), program, seed=0)


def test_so_it_is_in_a_factor_and_in_a_likelihood():
    def model(kind):
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if kind == "factor":
                pyro.factor("y", -z.square().sum())
            else:
                pyro.sample("y", dist.Normal(z.sum(), 1.0), obs=torch.ones(4))

    def guide(kind):
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(mean(), 1.0))

    for kind in ("factor", "likelihood"):
        with pytest.raises(InvalidProgram, match=r"'y'.*plate 'data'"):
            ppgrad.gradient(ELBO(), model, guide, (kind,), seed=0)


def counted(value_of):
    """A program whose plate holds one number that depends on no draw inside of it: −16 m² in all for m²."""

    def program():
        m = mean()
        z = ppgrad.policy("z", dist.Normal(m, 0.01))
        with pyro.plate("e", 4):
            ppgrad.policy("x", dist.Normal(m, 1.0))
            ppgrad.cost("c", value_of(z, m))

    return program


@pytest.mark.filterwarnings("ignore::ppgrad.NoGradientPath")
@pytest.mark.parametrize(
    ("value_of", "slope"),
    [(lambda z, m: 2.0, 0.0), (lambda z, m: 2 * m, 8.0), (lambda z, m: 2 * z, 8.0), (lambda z, m: 2 * z * m, 16.0)],
    ids=["constant", "parameter", "draw outside", "both"],
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_number_that_mixes_no_slices_counts_once_a_slice(value_of, slope, estimator):
    found = ppgrad.measure(ExpectedReturn(estimator), counted(value_of), replicates=2000, seed=1)
    error = (found.variance["m"] / 2000).sqrt()
    assert abs(float(found.mean["m"]) + slope) <= 5 * float(error) + 1e-4
    assert ExpectedReturn(num_particles=50).loss(counted(value_of), None) == pytest.approx(8.0, abs=0.1)
