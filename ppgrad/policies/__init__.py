"""Policies: torch modules from features to Pyro distributions over actions."""

from ppgrad.policies.beta import BetaPolicy
from ppgrad.policies.categorical import CategoricalPolicy
from ppgrad.policies.gaussian import GaussianPolicy
from ppgrad.policies.gaussian_mixture import GaussianMixture
from ppgrad.policies.mixture import MixturePolicy
from ppgrad.policies.policy import Policy
from ppgrad.policies.scaled_beta import ScaledBeta
from ppgrad.policies.squashed import Squashed

__all__ = [
    "BetaPolicy",
    "CategoricalPolicy",
    "GaussianMixture",
    "GaussianPolicy",
    "MixturePolicy",
    "Policy",
    "ScaledBeta",
    "Squashed",
]
