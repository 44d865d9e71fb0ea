"""What a few estimators and baselines do beyond drawing a value and having a surrogate, one class for each.

A member that does one of these names it beside its base: ``class Enumerate(Estimator, SumsOver)``.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core.draw import Draw, Signal
from ppgrad.core.memory import Memory, Pilot
from ppgrad.core.sample import Draws, Sample

if TYPE_CHECKING:
    from ppgrad.core.estimator import Estimator


class _Inherited(ABCMeta):
    """Abstract methods as in `abc.ABC`; an instance is one by inheritance alone, since every draw asks."""

    __instancecheck__ = type.__instancecheck__  # in C, where that of ABCMeta runs Python


class Learns(metaclass=_Inherited):
    """It has modules of its own (a critic, a control variate), and a loss that trains them."""

    @abstractmethod
    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        """A scalar loss for its own parameters, added to the surrogate; None for nothing to learn here."""

    @abstractmethod
    def modules(self) -> tuple[torch.nn.Module, ...]:
        """The modules that `own_loss` trains."""


class Remembers(metaclass=_Inherited):
    """It keeps numbers of a site from one gradient to the next."""

    @abstractmethod
    def update(self, draw: Draw, signal: Signal, memory: Memory) -> Memory:
        """The memory after this gradient; ``surrogate`` and ``predict`` always see the one from before."""


class Calibrates(metaclass=_Inherited):
    """It has scalars, gates, that held-out runs choose; they stand in its memory of the site."""

    @property
    @abstractmethod
    def gates(self) -> Mapping[str, float]:
        """The names of the gates, and the values that they have in the held-out runs."""

    @abstractmethod
    def calibrate(self, pilot: Pilot) -> Memory:
        """The gates' values, from held-out runs."""


class Tunes(metaclass=_Inherited):
    """Which estimator draws a site depends on what is remembered of the site."""

    @abstractmethod
    def tuned(self, memory: Memory) -> Estimator:
        """The estimator that serves the site in its place."""


class SumsOver(metaclass=_Inherited):
    """A site is summed over instead of drawn: the program runs at each point of a grid."""

    @abstractmethod
    def grid(self, fn: TorchDistribution) -> Tensor:
        """The points to sum over, shape ``(n, *event)``."""

    def grid_value(self, fn: TorchDistribution, points: Tensor) -> Tensor:
        """The site's value at grid points of shape batch + event; the points themselves, mostly."""
        return points

    @abstractmethod
    def grid_log_weight(self, fn: TorchDistribution, value: Tensor, index: Tensor) -> Tensor:
        """Log weight of the values at grid ``index``, shape batch, with a graph to the parameters."""


class SharesNoise(metaclass=_Inherited):
    """Its particles may share noise: as ``draws`` says, or not at all where that is None."""

    draws: Draws | None

    @abstractmethod
    def sample_from(self, fn: TorchDistribution, uniform: Tensor) -> Sample:
        """Draw a value from uniform noise of its shape, batch + event."""


class RunsAgain(metaclass=_Inherited):
    """A baseline that is a cost of the program itself, run again with other values at the site."""

    @abstractmethod
    def references(self, fn: TorchDistribution) -> Tensor:
        """Values to run the program again with, ``(n, *batch, *event)``: its costs come as alternatives.

        They carry no graph.
        """
