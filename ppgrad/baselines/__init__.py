"""Baselines of the score function, one a file."""

from ppgrad.baselines.constant import Constant
from ppgrad.baselines.critic import Critic
from ppgrad.baselines.delta_method import DeltaMethod
from ppgrad.baselines.generalized_advantage import GeneralizedAdvantage
from ppgrad.baselines.leave_one_out import LeaveOneOut
from ppgrad.baselines.moving_average import MovingAverage
from ppgrad.baselines.optimal_constant import OptimalConstant
from ppgrad.baselines.per_context import PerContext
from ppgrad.baselines.pyro_keys import PyroBaseline
from ppgrad.baselines.self_critical import SelfCritical
from ppgrad.baselines.vimco import VIMCO
from ppgrad.core import Baseline

__all__ = [
    "VIMCO",
    "Constant",
    "Critic",
    "DeltaMethod",
    "GeneralizedAdvantage",
    "LeaveOneOut",
    "MovingAverage",
    "OptimalConstant",
    "PerContext",
    "PyroBaseline",
    "SelfCritical",
    "all_baselines",
]


def all_baselines() -> tuple[type[Baseline], ...]:
    """Every baseline class, in alphabetical order."""
    return tuple(globals()[name] for name in sorted(__all__) if name != "all_baselines")
