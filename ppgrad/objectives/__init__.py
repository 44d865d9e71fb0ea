"""Objectives, one a file."""

from ppgrad.objectives.elbo import ELBO
from ppgrad.objectives.expected_return import ExpectedReturn
from ppgrad.objectives.iwelbo import IWELBO
from ppgrad.objectives.objective import Objective

__all__ = ["ELBO", "IWELBO", "ExpectedReturn", "Objective"]
