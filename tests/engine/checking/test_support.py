"""A value outside of the support of the model's site: raised as Pyro raises it, by every entry and in every mode."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI

import ppgrad
from ppgrad import ELBO, InvalidProgram, OutOfSupport, Pathwise, ScoreFunction

tensor = torch.tensor

PRIORS = {
    "Gamma": lambda: dist.Gamma(2.0, 1.0),
    "Beta": lambda: dist.Beta(2.0, 2.0),
    "LogNormal": lambda: dist.LogNormal(0.0, 1.0),
    "HalfCauchy": lambda: dist.HalfCauchy(1.0),
    "Uniform": lambda: dist.Uniform(-1.0, 1.0),
    "Pareto": lambda: dist.Pareto(tensor(1.0), tensor(2.0)),
}
"""A sample of those whose support is no line; the guide is normal."""


def model(prior, mean=0.0):
    z = pyro.sample("z", PRIORS[prior]())
    pyro.sample("y", dist.Normal(z, 1.0), obs=tensor(1.0))


def guide(prior, mean=0.0):
    pyro.sample("z", dist.Normal(pyro.param("m", tensor(float(mean))), 1.0))


def never_first(prior, mean=0.5):
    """A guide that leaves the support in about one run of 44, and so hardly ever in the first one."""
    pyro.sample("z", dist.Normal(pyro.param("m", tensor(float(mean))), 0.25))


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("vectorize", [True, False])
def test_a_guide_that_leaves_the_support_is_named(prior, vectorize):
    objective = ELBO(num_particles=100, vectorize_particles=vectorize)
    with pytest.raises(OutOfSupport, match="'z'"):
        ppgrad.gradient(objective, model, guide, (prior,), seed=1)
    with pytest.raises(ValueError, match="'z'"):  # as Pyro does
        objective.loss(model, guide, prior)


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()])
@pytest.mark.parametrize("vectorize", [True, False])
def test_so_it_is_where_the_first_run_does_not_tell(estimator, vectorize):
    objective = ELBO(estimator, num_particles=400, vectorize_particles=vectorize)
    with pytest.raises(OutOfSupport, match="'z'"):
        ppgrad.gradient(objective, model, never_first, ("Gamma",), seed=0)


def test_so_it_is_in_measure_fit_and_svi():
    with pytest.raises(OutOfSupport, match="'z'"):
        ppgrad.measure(ELBO(), model, never_first, ("Gamma",), replicates=500)
    with pytest.raises(OutOfSupport, match="'z'"):
        ppgrad.fit(ELBO(num_particles=20), model, never_first, ("Gamma",), steps=40, progress=False)
    pyro.clear_param_store()
    svi = SVI(model, never_first, pyro.optim.Adam({"lr": 0.01}), ELBO(num_particles=20))
    with pytest.raises(OutOfSupport, match="'z'"):
        [svi.step("Gamma") for _ in range(200)]


def test_so_it_is_when_compiled():
    objective = ELBO(num_particles=400, compile="eager")
    with pytest.raises(OutOfSupport, match="'z'"):
        ppgrad.gradient(objective, model, never_first, ("Gamma",), seed=0)


@pytest.mark.parametrize("scaled", [1.0, 2.5])
def test_observations_that_come_later_are_looked_at_too(scaled):
    def counts(data):
        rate = pyro.sample("rate", dist.LogNormal(pyro.param("m", tensor(0.0)), 1.0))
        ppgrad.policy("n", dist.Poisson(rate).expand([2]).to_event(1), obs=data)

    def of_rate(data):
        pyro.sample("rate", dist.LogNormal(pyro.param("m", tensor(0.0)), 1.0))

    objective = ELBO(num_particles=4)
    objective.loss(counts, of_rate, tensor([1.0, 3.0]))
    if scaled == 1.0:
        assert objective.loss(counts, of_rate, tensor([2.0, 2.0]) * scaled) > 0
    else:
        with pytest.raises(OutOfSupport, match="'n'"):
            objective.loss(counts, of_rate, tensor([1.0, 1.0]) * scaled)


def test_who_asks_for_no_checks_gets_none():
    def grey():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Bernoulli(logits=z, validate_args=False), obs=tensor(0.4))

    def of_grey():
        pyro.sample("z", dist.Normal(pyro.param("m", tensor(0.0)), 1.0))

    assert torch.isfinite(ppgrad.gradient(ELBO(num_particles=5), grey, of_grey, seed=0)["m"])


def test_a_guide_inside_of_the_support_is_no_mistake():
    def inside(prior):
        pyro.sample("z", dist.LogNormal(pyro.param("m", tensor(0.0)), 1.0))

    for objective in (ELBO(num_particles=50), ELBO(num_particles=50, compile="eager")):
        found = ppgrad.gradient(objective, model, inside, ("Gamma",), seed=0)
        assert torch.isfinite(found["m"])


def test_relaxed_values_may_lie_outside():
    def coin():
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(z, 1.0), obs=tensor(1.0))

    def of_coin():
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("l", tensor(0.2))))

    for estimator in (ppgrad.GumbelSoftmax(), ppgrad.REBAR()):
        found = ppgrad.gradient(ELBO(estimator, num_particles=50), coin, of_coin, seed=0)
        assert torch.isfinite(found["l"])


def test_an_observation_of_another_shape_is_named_with_its_shapes():
    def wrong():
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=torch.zeros(2))

    with pytest.raises(InvalidProgram, match=r"'x'.*\(2,\).*\(3,\)"):
        ppgrad.gradient(ELBO(), wrong, lambda: None, seed=0)
