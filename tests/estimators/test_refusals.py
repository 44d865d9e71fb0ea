"""Every estimator on every distribution of Pyro: it gives a finite gradient, or refuses by name with what can."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

import ppgrad
from ppgrad import ExpectedReturn, NonFinite, Unsupported
from ppgrad.core import Estimator
from ppgrad.estimators import all_estimators

V = torch.tensor
Make = Callable[[Tensor], dist.TorchDistribution]

# Each with a parameter t near 1 to learn, wherever the class lets one be learned.
DISTRIBUTIONS: dict[str, Make] = {
    "AVFMultivariateNormal": lambda t: dist.AVFMultivariateNormal(
        t * torch.ones(2), torch.eye(2), torch.zeros(2, 1, 2)
    ),
    "AffineBeta": lambda t: dist.AffineBeta(t, 2.0, 0.0, 1.0),
    "AsymmetricLaplace": lambda t: dist.AsymmetricLaplace(t, 1.0, 2.0),
    "Bernoulli": lambda t: dist.Bernoulli(logits=t),
    "Beta": lambda t: dist.Beta(t, 2.0),
    "BetaBinomial": lambda t: dist.BetaBinomial(t, 2.0, 3),
    "Binomial": lambda t: dist.Binomial(3, logits=t),
    "Categorical": lambda t: dist.Categorical(logits=t * V([0.0, 1.0, 2.0])),
    "Cauchy": lambda t: dist.Cauchy(t, 1.0),
    "Chi2": lambda t: dist.Chi2(t * 3),
    "CoalescentTimes": lambda t: dist.CoalescentTimes(V([0.0, 0.1, 0.2]), t),
    "ContinuousBernoulli": lambda t: dist.ContinuousBernoulli(logits=t),
    "Dirichlet": lambda t: dist.Dirichlet(t * V([1.0, 2.0, 3.0])),
    "DiscreteHMM": lambda t: dist.DiscreteHMM(
        torch.zeros(2), t * torch.eye(2).expand(3, 2, 2), dist.Normal(V([0.0, 1.0]), 1.0)
    ),
    "DirichletMultinomial": lambda t: dist.DirichletMultinomial(t * V([1.0, 2.0]), 3),
    "Exponential": lambda t: dist.Exponential(t),
    "Empirical": lambda t: dist.Empirical(V([1.0, 2.0]), t * V([0.0, 1.0])),
    "ExtendedBetaBinomial": lambda t: dist.ExtendedBetaBinomial(t, V(2.0), V(3)),
    "ExtendedBinomial": lambda t: dist.ExtendedBinomial(V(3), logits=t),
    "FisherSnedecor": lambda t: dist.FisherSnedecor(t * 5, 6.0),
    "FoldedDistribution": lambda t: dist.FoldedDistribution(dist.Normal(t, 1.0)),
    "Gamma": lambda t: dist.Gamma(2.0, t),
    "GammaPoisson": lambda t: dist.GammaPoisson(t, 1.0),
    "GaussianScaleMixture": lambda t: dist.GaussianScaleMixture(t * torch.ones(2), torch.zeros(2), torch.ones(2)),
    "GeneralizedPareto": lambda t: dist.GeneralizedPareto(0.0, t, 0.1),
    "Geometric": lambda t: dist.Geometric(logits=t),
    "Gumbel": lambda t: dist.Gumbel(t, 1.0),
    "HalfCauchy": lambda t: dist.HalfCauchy(t),
    "HalfNormal": lambda t: dist.HalfNormal(t),
    "InverseGamma": lambda t: dist.InverseGamma(t + 2, 1.0),
    "Kumaraswamy": lambda t: dist.Kumaraswamy(t, 2.0),
    "LKJ": lambda t: dist.LKJ(3, t),
    "LKJCholesky": lambda t: dist.LKJCholesky(3, t),
    "Laplace": lambda t: dist.Laplace(t, 1.0),
    "LogNormal": lambda t: dist.LogNormal(t, 0.5),
    "Logistic": lambda t: dist.Logistic(t, 1.0),
    "LogisticNormal": lambda t: dist.LogisticNormal(t * torch.ones(2), torch.ones(2)),
    "LowRankMultivariateNormal": lambda t: dist.LowRankMultivariateNormal(
        t * torch.ones(2), torch.ones(2, 1), torch.ones(2)
    ),
    "MaskedMixture": lambda t: dist.MaskedMixture(
        V([True, False]), dist.Normal(t.expand(2), 1.0), dist.Normal(V([0.0, 1.0]), 1.0)
    ).to_event(1),
    "MixtureOfDiagNormals": lambda t: dist.MixtureOfDiagNormals(t * torch.ones(2, 2), torch.ones(2, 2), torch.zeros(2)),
    "MixtureOfDiagNormalsSharedCovariance": lambda t: dist.MixtureOfDiagNormalsSharedCovariance(
        t * torch.ones(2, 2), torch.ones(2), torch.zeros(2)
    ),
    "MixtureSameFamily": lambda t: dist.MixtureSameFamily(
        dist.Categorical(logits=t * V([0.0, 1.0])), dist.Normal(V([0.0, 1.0]), 1.0)
    ),
    "Multinomial": lambda t: dist.Multinomial(3, logits=t * V([0.0, 1.0, 2.0])),
    "MultivariateNormal": lambda t: dist.MultivariateNormal(t * torch.ones(2), torch.eye(2)),
    "MultivariateStudentT": lambda t: dist.MultivariateStudentT(V(5.0), t * torch.ones(2), torch.eye(2)),
    "NanMaskedMultivariateNormal": lambda t: dist.NanMaskedMultivariateNormal(t * torch.ones(2), torch.eye(2)),
    "NanMaskedNormal": lambda t: dist.NanMaskedNormal(t, 1.0),
    "NegativeBinomial": lambda t: dist.NegativeBinomial(3, logits=t),
    "Normal": lambda t: dist.Normal(t, 1.0),
    "OMTMultivariateNormal": lambda t: dist.OMTMultivariateNormal(t * torch.ones(2), torch.eye(2)),
    "OneHotCategorical": lambda t: dist.OneHotCategorical(logits=t * V([0.0, 1.0, 2.0])),
    "OneHotCategoricalStraightThrough": lambda t: dist.OneHotCategoricalStraightThrough(logits=t * V([0.0, 1.0, 2.0])),
    "OneOneMatching": lambda t: dist.OneOneMatching(t * V([[1.0, 0.0], [0.0, 2.0]])),
    "OrderedLogistic": lambda t: dist.OrderedLogistic(t, V([0.0, 1.0])),
    "Pareto": lambda t: dist.Pareto(V(1.0), t + 2),
    "Poisson": lambda t: dist.Poisson(t),
    "ProjectedNormal": lambda t: dist.ProjectedNormal(t * V([1.0, 2.0])),
    "RelaxedBernoulli": lambda t: dist.RelaxedBernoulli(V(0.5), logits=t),
    "RelaxedBernoulliStraightThrough": lambda t: dist.RelaxedBernoulliStraightThrough(V(0.5), logits=t),
    "RelaxedOneHotCategorical": lambda t: dist.RelaxedOneHotCategorical(V(0.5), logits=t * V([0.0, 1.0, 2.0])),
    "RelaxedOneHotCategoricalStraightThrough": lambda t: dist.RelaxedOneHotCategoricalStraightThrough(
        V(0.5), logits=t * V([0.0, 1.0, 2.0])
    ),
    "SineBivariateVonMises": lambda t: dist.SineBivariateVonMises(t, V(0.0), V(1.0), V(1.0), V(0.5)),
    "SineSkewed": lambda t: dist.SineSkewed(dist.VonMises(t, V(1.0)).expand([1]).to_event(1), V([0.1])),
    "SkewLogistic": lambda t: dist.SkewLogistic(t, 1.0),
    "SoftAsymmetricLaplace": lambda t: dist.SoftAsymmetricLaplace(t, 1.0),
    "SoftLaplace": lambda t: dist.SoftLaplace(t, 1.0),
    "Stable": lambda t: dist.Stable(1.5, 0.1, 1.0, t),
    "StudentT": lambda t: dist.StudentT(5.0, t, 1.0),
    "TransformedDistribution": lambda t: dist.TransformedDistribution(
        dist.Normal(t, 1.0), [dist.transforms.ExpTransform()]
    ),
    "TruncatedPolyaGamma": lambda t: dist.TruncatedPolyaGamma(torch.ones(())),
    "Uniform": lambda t: dist.Uniform(0.0, t),
    "VonMises": lambda t: dist.VonMises(t, V(1.0)),
    "Weibull": lambda t: dist.Weibull(V(1.0), t + 1),
    "Wishart": lambda t: dist.Wishart(V(4.0), t * torch.eye(2)),
    "ZeroInflatedDistribution": lambda t: dist.ZeroInflatedDistribution(dist.Poisson(t), gate=V(0.3)),
    "ZeroInflatedNegativeBinomial": lambda t: dist.ZeroInflatedNegativeBinomial(3, logits=t, gate=V(0.3)),
    "ZeroInflatedPoisson": lambda t: dist.ZeroInflatedPoisson(t, gate=V(0.3)),
}

# Wrappers, abstract classes, densities without a sampler or with an in-place backward, models of sequences or graphs.
LEFT_OUT = {
    "CoalescentTimesWithRate", "Delta", "ExpandedDistribution", "ExponentialFamily", "GammaGaussianHMM", "GaussianHMM",
    "GaussianMRF", "GroupedNormalNormal", "ImproperUniform", "Independent", "IndependentHMM", "LKJCorrCholesky",
    "LinearHMM", "LogNormalNegativeBinomial", "MaskedDistribution", "OneTwoMatching", "Rejector", "SpanningTree",
    "StableWithLogProb", "TorchDistribution", "Unit", "VonMises3D",
}  # fmt: skip

NOTHING = {"RelaxedBernoulliStraightThrough", "RelaxedOneHotCategoricalStraightThrough"}
"""Their values are rounded, their densities are not; Pyro offers their biased gradient without an estimator."""

SERVED_BY_TWO = {"GaussianScaleMixture"}
"""Only `Pathwise` and its kin, since Pyro's density has no gradient."""

ESTIMATORS = [member.examples()[0] for member in all_estimators()]


def test_no_distribution_is_forgotten() -> None:
    found = {
        name
        for name, cls in vars(dist).items()
        if inspect.isclass(cls) and issubclass(cls, TorchDistributionMixin) and not name.startswith("_")
    }
    assert found == set(DISTRIBUTIONS) | LEFT_OUT


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_estimator_serves_or_refuses(name: str) -> None:
    served = []
    for estimator in ESTIMATORS:
        try:
            _gradient(DISTRIBUTIONS[name], estimator)
            served.append(type(estimator).__name__)
        except Unsupported as refusal:
            message = str(refusal)
            assert message.startswith(f"{type(estimator).__name__} cannot serve site 'x'"), message
            choices = message.partition("Choose ")[2].partition(" for it:")[0]
            named = len(choices.replace(" or ", ", ").split("), "))
            assert named == (2 if name in SERVED_BY_TWO else 3) or "No other estimator" in message, message
    assert served or name in NOTHING, f"nothing serves {name}"


def _gradient(make: Make, estimator: Estimator) -> None:
    def program(t: Tensor) -> None:
        x = ppgrad.policy("x", make(t))
        ppgrad.reward("r", (0.1 * x.to(t.dtype)).sum())

    t = torch.tensor(0.9, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = ppgrad.gradient(ExpectedReturn(estimator, num_particles=2), program, args=(t,), seed=0)
        except NonFinite:
            raise AssertionError(f"{estimator!r}: the gradient is not finite") from None
    assert all(bool(torch.isfinite(g).all()) for g in found.values())
