"""The words that every room shares: draws, signals, estimators, baselines, problems, errors."""

from ppgrad.core.baseline import Baseline
from ppgrad.core.draw import Draw, Plate, Plates, Signal, sum_lane, sum_plates
from ppgrad.core.errors import (
    CannotBeExact,
    CoupledSlices,
    InvalidAssignment,
    InvalidInput,
    InvalidProgram,
    NoCompiler,
    NoGradientPath,
    NonFinite,
    NotABound,
    OutOfSupport,
    PpgradError,
    ReadPastSites,
    TooManyBranches,
    Unsupported,
    second_pass_explained,
)
from ppgrad.core.estimator import Estimator
from ppgrad.core.facts import Facts
from ppgrad.core.memory import Memory, Pilot
from ppgrad.core.needs import Needs
from ppgrad.core.problem import Problem
from ppgrad.core.protocols import Calibrates, Learns, Remembers, RunsAgain, SharesNoise, SumsOver, Tunes
from ppgrad.core.sample import Draws, Sample
from ppgrad.core.site_info import SiteInfo

__all__ = [
    "Baseline",
    "Calibrates",
    "CannotBeExact",
    "CoupledSlices",
    "Draw",
    "Draws",
    "Estimator",
    "Facts",
    "InvalidAssignment",
    "InvalidInput",
    "InvalidProgram",
    "Learns",
    "Memory",
    "Needs",
    "NoCompiler",
    "NoGradientPath",
    "NonFinite",
    "NotABound",
    "OutOfSupport",
    "Pilot",
    "Plate",
    "Plates",
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
    "TooManyBranches",
    "Tunes",
    "Unsupported",
    "second_pass_explained",
    "sum_lane",
    "sum_plates",
]
