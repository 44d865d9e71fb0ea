"""The contract of an estimator: abstract here, final in its own file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import ClassVar, Self

from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core.draw import Draw, Signal
from ppgrad.core.facts import Facts
from ppgrad.core.member import Member
from ppgrad.core.memory import Memory
from ppgrad.core.needs import Needs
from ppgrad.core.sample import Sample
from ppgrad.core.site_info import SiteInfo


class Estimator(Member, ABC):
    """How the gradient of an expectation is estimated at one site.

    A member is one file with one frozen dataclass. It says what is known of it (`facts`), what it
    refuses (`refuses`), how it draws (`sample`) and what its surrogate is (`surrogate`); where it
    wants more than a draw and a cost, it says so in its `needs`. What few do is in `ppgrad.core.protocols`:
    to learn, to remember, to calibrate, to sum over a site.
    """

    facts: ClassVar[Facts]
    needs: ClassVar[Needs] = Needs()
    """What it wants from the engine; a cached property where that depends on the instance."""

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Self, ...]:
        """Instances that the conformance tests run."""

    @abstractmethod
    def refuses(self, site: SiteInfo) -> str | None:
        """Why this estimator cannot serve ``site``, or None if it can."""

    def sample(self, fn: TorchDistribution) -> Sample:
        """Draw a value. Only an estimator that `SumsOver` its sites leaves this out."""
        raise TypeError(f"{type(self).__name__} has no sample; write one, or let it be a SumsOver")

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        """A cost term whose sum's gradient is the site's share of the estimate: lanes, or lanes + plates."""
        return None

    @property
    def chained_by(self) -> Hashable:
        """What the draws of one `Chain` have in common, for an estimator that needs one."""
        return self

    @property
    def account(self) -> Facts:
        """The facts of this very instance."""
        return self.facts

    def refusal(self, site: SiteInfo) -> str | None:
        """What `refuses` says; or else that the program says that no gradient goes through the value."""
        reason = self.refuses(site)
        needs = self.needs
        slope = self.account.reparameterized or needs.relaxed or needs.slopes or needs.outside_support
        if reason is None and slope and not site.differentiable:
            return (
                "no gradient goes through its value: it is marked infer={'differentiable': False}, as in a rollout of "
                "a NumPy environment"
            )
        return reason
