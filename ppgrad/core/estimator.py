"""The contract of an estimator and of a baseline: abstract here, final in their own files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core.draw import Draw, Plates, Signal

Memory = Mapping[str, Tensor]
"""What a baseline keeps from one gradient to the next; replaced, never changed in place."""


@dataclass(frozen=True)
class Facts:
    """What is known of an estimator; the tests and ``ppgrad list`` read it.

    Args:
        biased: the expectation of the estimate is not the gradient.
        order: how fast the bias falls, for a biased estimator ("O(h²)").
        assumes: what an unbiased estimator takes for granted of the cost.
        reparameterized: the value carries a gradient to the distribution's parameters.
        finds_jumps: where the cost jumps, it stops the gradient of the value.
        source: paper and equation.
    """

    source: str
    biased: bool = False
    order: str = ""
    assumes: str = ""
    reparameterized: bool = False
    finds_jumps: bool = False


class Sample(NamedTuple):
    """A drawn value, and whatever else the surrogate will need from inside the run.

    Args:
        value: what the program goes on with, shape batch + event.
        extras: further tensors, of the batch shape in front; they come back in ``Draw.extras``.
        alternatives: values to run the program again with, shape ``(n, *batch, *event)``; each is a
            branch, one more run.
    """

    value: Tensor
    extras: Mapping[str, Tensor] = {}
    alternatives: Tensor | None = None


@dataclass(frozen=True)
class SiteInfo:
    """What an estimator may know of a site before it serves it.

    Args:
        name: the site.
        fn: its distribution.
        plates: the vectorized plates around it.
        num_particles: how many independent estimates are averaged.
        has_context: whether a learned baseline would find something to look at.
        num_importance: how many importance samples share one bound.
        context: what a baseline may look at, or None.
        weighs_guide: whether the objective has weights p / q of a guide's draws.
        differentiable: whether a gradient may pass through the value; ``infer["differentiable"]`` of the site.
    """

    name: str
    fn: TorchDistribution
    plates: Plates
    num_particles: int
    has_context: bool
    num_importance: int = 1
    context: Any = None
    weighs_guide: bool = False
    differentiable: bool = True


class Pilot(NamedTuple):
    """What held-out runs tell of a gradient: its projections on random directions, ``(directions, runs)``.

    Args:
        total: of the whole gradient.
        effects: of its derivative with respect to each gate of an estimator.
        pooled: the effects added up over all sites of this kind of estimator where the cost does not jump.
        jumps: the cost was seen to jump as the site's value moved; looked for where the facts say ``finds_jumps``.
    """

    total: Tensor
    effects: Mapping[str, Tensor]
    pooled: Mapping[str, Tensor] = {}
    jumps: bool = False


class Draws(ABC):
    """Uniform noise for all particles of a gradient, uniform for each particle alone."""

    @abstractmethod
    def uniforms(
        self,
        particles: int,
        dimensions: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Noise in (0, 1) of shape ``(particles, dimensions)``; None for torch's defaults."""


class _Member:
    """A frozen dataclass that prints as one would write it: without the fields that are at their defaults."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__repr__ = _written  # type: ignore[method-assign]


def _written(member: Any) -> str:
    shown = []
    for entry in fields(member):
        value = getattr(member, entry.name)
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if entry.repr and (isinstance(value, Tensor) or value != default):
            shown.append(f"{entry.name}={value!r}")
    return f"{type(member).__name__}({', '.join(shown)})"


class Estimator(_Member, ABC):
    """How the gradient of an expectation is estimated at one site.

    A member is one file with one frozen dataclass. It says how it draws (`sample`), what its
    surrogate is (`surrogate`), and what it refuses (`refuses`). A site that is summed over instead
    of drawn returns its values from `grid`.
    """

    facts: ClassVar[Facts]
    element_by_element: ClassVar[bool] = False
    """Whether an alternative replaces one element at a time where later costs couple the elements."""
    relaxes: ClassVar[bool] = False
    """Whether the costs of the alternatives are to carry their gradient."""
    differentiates: ClassVar[bool] = False
    """Whether the gradient of the cost in each alternative is needed."""
    leaves_support: ClassVar[bool] = False
    """Whether the value drawn may lie between those of the distribution."""
    stops_parameters: ClassVar[bool] = False
    """Whether a bound's weights are needed as functions of the values alone, all parameters held fixed."""

    @property
    def looks_ahead(self) -> bool:
        """Whether it reads the chain of draws that it serves."""
        return False

    @property
    def joins_steps(self) -> bool:
        """Whether one call of `surrogate` may serve many draws, side by side along the second lane dimension.

        It then reads of a draw its log density and its plates, of a signal its value, and nothing else.
        """
        return False

    @property
    def account(self) -> Facts:
        """The facts of this very instance."""
        return self.facts

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Self, ...]:
        """Instances that the conformance tests run."""

    @abstractmethod
    def refuses(self, site: SiteInfo) -> str | None:
        """Why this estimator cannot serve ``site``, or None if it can."""

    def refusal(self, site: SiteInfo) -> str | None:
        """What `refuses` says; or else that the program says that no gradient goes through the value."""
        reason = self.refuses(site)
        if reason is None and self.needs_slope and not site.differentiable:
            return (
                "no gradient goes through its value: it is marked infer={'differentiable': False}, as in a rollout of "
                "a NumPy environment"
            )
        return reason

    @property
    def needs_slope(self) -> bool:
        """Whether it differentiates the cost with respect to the value."""
        return self.account.reparameterized or self.relaxes or self.differentiates or self.leaves_support

    @property
    def draws(self) -> Draws | None:
        """How particles share noise; None where each has its own."""
        return None

    def sample_from(self, fn: TorchDistribution, uniform: Tensor) -> Sample:
        """Draw a value from uniform noise of its shape; for an estimator with `draws`."""
        raise TypeError(f"{type(self).__name__} draws noise of its own")

    def sample(self, fn: TorchDistribution) -> Sample:
        """Draw a value. Only an estimator with a `grid` leaves this out."""
        raise TypeError(f"{type(self).__name__} sums over a grid and draws nothing")

    def log_prob(self, fn: TorchDistribution, value: Tensor) -> Tensor:
        """The site's log density as costs see it."""
        log_prob: Tensor = fn.log_prob(value)
        return log_prob

    def grid(self, fn: TorchDistribution) -> Tensor | None:
        """The points to sum over, shape ``(n, *event)``, or None for a site that is drawn."""
        return None

    def grid_value(self, fn: TorchDistribution, points: Tensor) -> Tensor:
        """The site's value at grid points of shape batch + event; the points themselves, mostly."""
        return points

    def grid_log_weight(self, fn: TorchDistribution, value: Tensor, index: Tensor) -> Tensor:
        """Log weight of the values at grid ``index``, shape batch, with a graph to the parameters."""
        raise TypeError(f"{type(self).__name__} has no grid")

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        """A cost term whose sum's gradient is the site's share of the estimate: lanes, or lanes + plates."""
        return None

    @property
    def gates(self) -> Mapping[str, float]:
        """Scalars in the memory that held-out runs calibrate: the values that they have in those runs."""
        return {}

    def calibrate(self, pilot: Pilot) -> Memory:
        """The gates' values, from held-out runs."""
        return {}

    def tuned(self, memory: Memory) -> Estimator:
        """The estimator that serves the site, given what is remembered of it."""
        return self

    def update(self, draw: Draw, signal: Signal, memory: Memory) -> Memory:
        """The memory after this gradient; `surrogate` always sees the one from before."""
        return memory

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        """A loss for the estimator's own parameters (a critic's), or None."""
        return None

    def modules(self) -> tuple[torch.nn.Module, ...]:
        """The modules that `own_loss` trains."""
        return ()


class Baseline(_Member, ABC):
    """A control variate of `ScoreFunction`: a value to subtract that does not depend on the draw."""

    source: ClassVar[str]

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Self, ...]:
        """Instances that the conformance tests run."""

    def refuses(self, site: SiteInfo) -> str | None:
        """Why this baseline cannot serve ``site``, with the mend, or None if it can."""
        return None

    def references(self, fn: TorchDistribution) -> Tensor | None:
        """Values to run the program again with, ``(n, *batch, *event)``: its costs come as alternatives.

        They carry no graph.
        """
        return None

    @property
    def looks_ahead(self) -> bool:
        """Whether it reads the chain of draws that it serves."""
        return False

    @property
    def joins_steps(self) -> bool:
        """As for `Estimator`."""
        return False

    @property
    def bias(self) -> str:
        """How the estimate is biased with it; nothing if it is not."""
        return ""

    @property
    def compares_particles(self) -> bool:
        """Whether it needs particles that are independent."""
        return False

    @property
    def gates(self) -> Mapping[str, float]:
        """As for `Estimator`."""
        return {}

    def calibrate(self, pilot: Pilot) -> Memory:
        """As for `Estimator`."""
        return {}

    @abstractmethod
    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        """The baseline of the signal, broadcastable to it; no gradient but that of a gate passes."""

    def update(self, draw: Draw, signal: Signal, memory: Memory) -> Memory:
        """The memory after this gradient."""
        return memory

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        """A loss for the baseline's own parameters, or None."""
        return None

    def modules(self) -> tuple[torch.nn.Module, ...]:
        """The modules that `own_loss` trains."""
        return ()
