"""Objectives, one a file."""

from ppgrad.objectives.elbo import ELBO
from ppgrad.objectives.entropic_risk import EntropicRisk
from ppgrad.objectives.expected_return import ExpectedReturn
from ppgrad.objectives.iwelbo import IWELBO
from ppgrad.objectives.max_ent_return import MaxEntReturn
from ppgrad.objectives.objective import Objective
from ppgrad.objectives.renyi_elbo import RenyiELBO

__all__ = ["ELBO", "IWELBO", "EntropicRisk", "ExpectedReturn", "MaxEntReturn", "Objective", "RenyiELBO"]
