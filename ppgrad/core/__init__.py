"""The words that every room shares: draws, signals, estimators, baselines, problems, errors."""

from ppgrad.core.draw import Draw, Plate, Plates, Signal, sum_lane, sum_plates
from ppgrad.core.errors import (
    CannotBeExact,
    InvalidAssignment,
    InvalidInput,
    InvalidProgram,
    NoCompiler,
    NoGradientPath,
    NonFinite,
    PpgradError,
    TooManyBranches,
    Unsupported,
)
from ppgrad.core.estimator import Baseline, Draws, Estimator, Facts, Memory, Pilot, Sample, SiteInfo
from ppgrad.core.problem import Problem

__all__ = [
    "Baseline",
    "CannotBeExact",
    "Draw",
    "Draws",
    "Estimator",
    "Facts",
    "InvalidAssignment",
    "InvalidInput",
    "InvalidProgram",
    "Memory",
    "NoCompiler",
    "NoGradientPath",
    "NonFinite",
    "Pilot",
    "Plate",
    "Plates",
    "PpgradError",
    "Problem",
    "Sample",
    "Signal",
    "SiteInfo",
    "TooManyBranches",
    "Unsupported",
    "sum_lane",
    "sum_plates",
]
