"""ppgrad: gradients of expectations over stochastic programs, estimated site by site.

Write a program once, as a Pyro model with policy sites and reward sites; say what is wanted of it
with an objective; choose at each site how the gradient is estimated; measure what the choice costs.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "ppgrad.sites": ("policy", "reward", "cost"),
    "ppgrad.core": (
        "Baseline",
        "Calibrates",
        "CannotBeExact",
        "CoupledSlices",
        "Draw",
        "Estimator",
        "Facts",
        "InvalidAssignment",
        "InvalidInput",
        "InvalidProgram",
        "Learns",
        "Needs",
        "NoCompiler",
        "NoGradientPath",
        "NonFinite",
        "NotABound",
        "OutOfSupport",
        "PpgradError",
        "Problem",
        "ReadPastSites",
        "Remembers",
        "RunsAgain",
        "Sample",
        "SharesNoise",
        "Signal",
        "SiteInfo",
        "SumsOver",
        "Tunes",
        "Unsupported",
    ),
    "ppgrad.core.particle_noise": ("Antithetic", "QuasiMonteCarlo"),
    "ppgrad.estimators": (
        "ARM",
        "REBAR",
        "DReG",
        "DisARM",
        "DoubleControlVariate",
        "Interpolated",
        "InverseVariance",
        "StickingTheLanding",
        "MuProp",
        "RELAX",
        "SPSA",
        "Rodeo",
        "Enumerate",
        "EvolutionStrategies",
        "FiniteDifference",
        "GumbelRao",
        "GumbelSoftmax",
        "LocalExpectation",
        "MeasureValued",
        "Pathwise",
        "ReinMax",
        "ScoreFunction",
        "StochasticPerturbation",
        "SumAndSample",
        "UnorderedSet",
        "StraightThrough",
        "all_estimators",
    ),
    "ppgrad.baselines": (
        "Constant",
        "Critic",
        "DeltaMethod",
        "GeneralizedAdvantage",
        "LeaveOneOut",
        "MovingAverage",
        "OptimalConstant",
        "PerContext",
        "SelfCritical",
        "VIMCO",
    ),
    "ppgrad.policies": (
        "BetaPolicy",
        "CategoricalPolicy",
        "GaussianMixture",
        "GaussianPolicy",
        "MixturePolicy",
        "Policy",
        "ScaledBeta",
        "Squashed",
    ),
    "ppgrad.engine.assignment.config": ("config_gradient",),
    "ppgrad.objectives": (
        "ELBO",
        "IWELBO",
        "BestOf",
        "CVaR",
        "Divergence",
        "EntropicRisk",
        "ExpectedReturn",
        "GroupRelative",
        "KLRegularized",
        "MaxEntReturn",
        "Objective",
        "RenyiELBO",
        "ReweightedWakeSleep",
        "VarGrad",
    ),
    "ppgrad.analysis": ("Comparison", "History"),
    "ppgrad.envs": ("rollout",),
    "ppgrad.measurement": (
        "Measurement",
        "compare",
        "dependence",
        "exact_gradient",
        "fisher",
        "fisher_vector_product",
        "gradient",
        "hessian",
        "hvp",
        "measure",
        "rollouts",
        "score",
    ),
    "ppgrad.train": ("NaturalGradient", "fit"),
}
_ROOM = {name: room for room, names in _PUBLIC.items() for name in names}

__all__ = sorted([*_ROOM, "__version__"])


def __getattr__(name: str) -> Any:
    if f"ppgrad.{name}" in _PUBLIC:
        return importlib.import_module(f"ppgrad.{name}")
    if name not in _ROOM:
        raise AttributeError(f"module 'ppgrad' has no attribute {name!r}")
    value = getattr(importlib.import_module(_ROOM[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
