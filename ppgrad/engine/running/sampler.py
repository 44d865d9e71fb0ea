"""Gives every random site the value that its estimator draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppgrad.core import Estimator, InvalidAssignment, Memory, Plates, Sample, SharesNoise, SumsOver, Tunes, Unsupported
from ppgrad.core.distributions import is_deterministic, likeliest_where, unvalidated
from ppgrad.engine.assignment.assignment import Assignment
from ppgrad.engine.running.enumerating import Summing
from ppgrad.engine.running.handed_over import version_of
from ppgrad.engine.running.shared_noise import NoiseSite, SubsampledPlate, noise_site
from ppgrad.engine.running.site import PLAIN, Drawn, site_info


class Sizes(NamedTuple):
    """How many independent particles a gradient has, how many importance samples each, and if by weights p / q.

    Importance samples of one posterior share their data, the elements of subsampled plates.
    """

    num_particles: int
    num_importance: int = 1
    weighs_guide: bool = False
    shares_data: bool = False


Watch = Callable[[str, TorchDistribution], None]


class GridTooSmall(Exception):
    """A site to be summed over needs more branches than the grid holds so far."""

    def __init__(self, name: str, size: int, device: torch.device, joint: Plates = frozenset()):
        super().__init__(name)
        self.name, self.size, self.device, self.joint = name, size, device, joint


class SharedNoise(Exception):
    """A site is to be drawn from noise that particles share, and that nobody has drawn so far."""

    def __init__(self, name: str, site: NoiseSite | SubsampledPlate):
        super().__init__(name)
        self.name, self.site = name, site


@dataclass(frozen=True)
class Branch:
    """One more run, which differs from the program as drawn at one site.

    Args:
        site: where.
        alternative: which of the alternatives takes the value's place.
        elements: where it does, shape batch + event; None for everywhere.
        shift: is added to it, lanes + batch + event; None for nothing.
    """

    site: str
    alternative: int
    elements: Tensor | None = None
    shift: Tensor | None = None


class Sampler(Messenger):
    """Gives every random site the value that its estimator draws.

    ``given`` holds draws, contexts and rewards with how often each had been written into: the first run of a program
    has looked at everything else.

    Args:
        assignment: chooses the estimators.
        sizes: what the estimators may be told of particles and importance samples.
        grid: for each site that is summed over, the index of this branch's point, shaped like the
            site's plates (one where the elements of a plate share it).
        branch: what to do otherwise than the program as drawn.
        shift: of this lane, is added to the branch's alternative.
        memory: what is remembered of each site.
        points: how many values each site that is summed over has.
        watch: is shown each site's name and distribution before anything is drawn from it.
        bounded: the sites whose density is to be −∞ outside of its support, since nothing else looks.
        copies: the program writes into what it draws or hands over, so that sites keep copies.
        summing: where sites of the model that ask for it are summed out; None where they are not.
    """

    bounded: frozenset[str] = frozenset()
    summing: Summing | None = None

    def __init__(
        self,
        assignment: Assignment,
        sizes: Sizes,
        grid: Mapping[str, Tensor],
        watch: Watch | None = None,
        branch: Branch | None = None,
        shift: Tensor | None = None,
        memory: Mapping[str, Memory] | None = None,
        uniforms: Mapping[str, Tensor] | None = None,
        points: Mapping[str, int] | None = None,
        bounded: frozenset[str] = frozenset(),
        copies: bool = False,
        summing: Summing | None = None,
    ):
        super().__init__()
        self._points = points or {}
        self.bounded = bounded
        self.copies = copies
        self.summing = summing
        self.given: list[tuple[Tensor, int]] = []
        self._uniforms = uniforms or {}
        self._memory = memory or {}
        self._shift = shift
        self._branch = branch
        self._watch = watch
        self._assignment = assignment
        self._sizes = sizes
        self._grid = grid
        self.drawn: dict[str, Drawn] = {}
        self.parameters: dict[str, Any] = {}

    def _pyro_post_param(self, message: Any) -> None:
        self.parameters[message["name"]] = message["value"]

    def _pyro_sample(self, message: Any) -> None:
        fn, name = message["fn"], message["name"]
        if self._watch is not None:
            self._watch(name, fn)
        if not self.copies:
            self._note(fn, message["infer"])
        if name in self.drawn and self.drawn[name].is_relaxed:
            message["fn"] = unvalidated(fn)  # the model's density of the guide's value
        if type(fn).__name__ == "_Subsample":
            self._subsample(message)
            return
        if message["done"] or message["is_observed"] or is_deterministic(fn):
            return
        estimator = self._assignment.estimator_of(message, lambda: site_info(message, *self._sizes[:3]))
        if estimator is None:
            self.drawn[name] = PLAIN
            return
        if isinstance(estimator, Tunes):
            estimator = estimator.tuned(self._memory.get(name, {}))
        if not isinstance(estimator, SumsOver):
            sample = self._sample(estimator, name, fn)
            count = 0 if sample.alternatives is None else len(sample.alternatives)
            if count and not estimator.needs.alternatives:
                raise InvalidAssignment(_undeclared(name, estimator))
            message["value"] = self._chosen(name, sample)
            changed = self._branch is not None and self._branch.site == name
            in_branch = self._branch is not None
            self.drawn[name] = drawn = Drawn(estimator, sample.extras, None, count, changed, in_branch)
            if drawn.is_relaxed:
                message["fn"] = unvalidated(fn)
        else:
            points = estimator.grid(fn)
            if name not in self._grid:
                raise GridTooSmall(name, len(points), points.device)
            if self._points.get(name, len(points)) != len(points):
                raise Unsupported(_other_values(name, estimator, self._points[name], len(points)))
            index = self._grid[name]
            chosen = points.index_select(0, index.reshape(-1)).reshape((*index.shape, *points.shape[1:]))
            value = estimator.grid_value(fn, chosen.expand(fn.shape()))
            log_weight = estimator.grid_log_weight(fn, value, index)
            message["value"] = likeliest_where(log_weight.exp() == 0, fn, value)
            self.drawn[name] = Drawn(estimator, {}, log_weight)
        message["done"] = True
        if not self.copies:
            self.given.append((message["value"], version_of(message["value"])))

    def _note(self, fn: TorchDistribution, infer: Mapping[str, Any]) -> None:
        """Note how often was written into a context or a reward so far."""
        given = infer.get("context") if "context" in infer else vars(fn).get("log_factor")
        if isinstance(given, Tensor):
            self.given.append((given, version_of(given)))

    def _subsample(self, message: Any) -> None:
        """Importance samples of one bound are of the same data."""
        fn, name = message["fn"], message["name"]
        shares = self._sizes.shares_data and self._sizes.num_importance > 1
        is_drawn = not message["done"] and message["value"] is None and fn.subsample_size not in (None, fn.size)
        if not (shares and is_drawn):
            return
        if name not in self._uniforms:
            raise SharedNoise(name, SubsampledPlate(fn.size, fn.subsample_size, fn.device))
        message["value"] = self._uniforms[name]
        message["done"] = True

    def _sample(self, estimator: Estimator, name: str, fn: TorchDistribution) -> Sample:
        if not isinstance(estimator, SharesNoise) or estimator.draws is None:
            return estimator.sample(fn)
        if name not in self._uniforms:
            raise SharedNoise(name, noise_site(estimator.draws, fn))
        return estimator.sample_from(fn, self._uniforms[name])

    def _chosen(self, name: str, sample: Sample) -> Tensor:
        branch = self._branch
        if branch is None or branch.site != name or sample.alternatives is None:
            return sample.value
        alternative = sample.alternatives[branch.alternative]
        if self._shift is not None:
            alternative = alternative + self._shift
        if branch.elements is None:
            return alternative
        return torch.where(branch.elements, alternative, sample.value)


def _undeclared(name: str, estimator: Estimator) -> str:
    return (
        f"{type(estimator).__name__} hands out alternatives at site '{name}', and its needs say nothing of them. "
        "Write into it: needs: ClassVar[Needs] = Needs(alternatives=True)."
    )


def _other_values(name: str, estimator: Estimator, before: int, now: int) -> str:
    return (
        f"{type(estimator).__name__} cannot serve site '{name}': it has {now} values in one run, {before} in another."
        f"\nChoose ScoreFunction() for it: sites={{'{name}': ScoreFunction()}}."
    )
