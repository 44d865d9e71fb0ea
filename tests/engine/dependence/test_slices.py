"""One number inside of a plate counts once a slice, as in Pyro."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ExpectedReturn, Pathwise, ScoreFunction

tensor = torch.tensor
ESTIMATORS = [Pathwise(), ScoreFunction(), ppgrad.MeasureValued()]


def mean():
    return pyro.param("m", tensor(1.0))


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
