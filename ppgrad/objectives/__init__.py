"""Objectives, one a file."""

from ppgrad.objectives._shared.estimate import Estimate
from ppgrad.objectives._shared.surrogates import surrogates
from ppgrad.objectives.best_of import BestOf
from ppgrad.objectives.cvar import CVaR
from ppgrad.objectives.divergence import Divergence
from ppgrad.objectives.elbo import ELBO
from ppgrad.objectives.entropic_risk import EntropicRisk
from ppgrad.objectives.expected_return import ExpectedReturn
from ppgrad.objectives.group_relative import GroupRelative
from ppgrad.objectives.iwelbo import IWELBO
from ppgrad.objectives.kl_regularized import KLRegularized
from ppgrad.objectives.max_ent_return import MaxEntReturn
from ppgrad.objectives.objective import Objective
from ppgrad.objectives.renyi_elbo import RenyiELBO
from ppgrad.objectives.reweighted_wake_sleep import ReweightedWakeSleep
from ppgrad.objectives.var_grad import VarGrad

__all__ = [
    "ELBO",
    "IWELBO",
    "BestOf",
    "CVaR",
    "Divergence",
    "EntropicRisk",
    "Estimate",
    "ExpectedReturn",
    "GroupRelative",
    "KLRegularized",
    "MaxEntReturn",
    "Objective",
    "RenyiELBO",
    "ReweightedWakeSleep",
    "VarGrad",
    "surrogates",
]
