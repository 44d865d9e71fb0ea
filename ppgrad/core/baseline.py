"""The contract of a baseline: abstract here, final in its own file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from torch import Tensor

from ppgrad.core.draw import Draw, Signal
from ppgrad.core.member import Member
from ppgrad.core.memory import Memory
from ppgrad.core.needs import Needs
from ppgrad.core.site_info import SiteInfo


class Baseline(Member, ABC):
    """A control variate of `ScoreFunction`: a value to subtract that does not depend on the draw.

    A member is one file with one frozen dataclass. One that runs the program again, learns, remembers or
    calibrates says so by the class of `ppgrad.core.protocols` beside this one.
    """

    source: ClassVar[str]
    needs: ClassVar[Needs] = Needs()
    """What it wants from the engine; a property where that depends on the instance."""

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Self, ...]:
        """Instances that the conformance tests run."""

    def refuses(self, site: SiteInfo) -> str | None:
        """Why this baseline cannot serve ``site``, with the mend, or None if it can."""
        return None

    @property
    def bias(self) -> str:
        """How the estimate is biased with it; nothing if it is not."""
        return ""

    @abstractmethod
    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        """The baseline of the signal, broadcastable to it; no gradient but that of a gate passes."""
