"""Run a program once and record its random sites and its costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import pyro.poutine as poutine
import torch
from pyro.distributions import TorchDistribution, Unit
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppgrad.core import Estimator, InvalidAssignment, Memory, Plate, Plates, Sample, SiteInfo
from ppgrad.core.distributions import is_deterministic, unvalidated, without_mask
from ppgrad.core.relaxation import relaxed_log_prob
from ppgrad.engine.assign import Assignment
from ppgrad.engine.credit import AGAIN, SequencePath
from ppgrad.engine.noise import NoiseSite, noise_site
from ppgrad.engine.program import Program
from ppgrad.estimators import ScoreFunction

Kind = Literal["draw", "noise", "replayed", "observed", "reward", "factor", "deterministic"]


class Sizes(NamedTuple):
    """How many independent particles a gradient has, how many importance samples each, and if by weights p / q."""

    num_particles: int
    num_importance: int = 1
    weighs_guide: bool = False


Watch = Callable[[str, TorchDistribution], None]


class GridGrew(Exception):
    """A site to be summed over needs more branches than the grid holds so far."""

    def __init__(self, name: str, size: int, device: torch.device, joint: Plates = frozenset()):
        super().__init__(name)
        self.name, self.size, self.device, self.joint = name, size, device, joint


class SharedNoise(Exception):
    """A site is to be drawn from noise that particles share, and that nobody has drawn so far."""

    def __init__(self, name: str, site: NoiseSite):
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


class Drawn(NamedTuple):
    """How the sampler served a site; ``in_branch`` of a run that differs from the program as drawn."""

    estimator: Estimator | None
    extras: Mapping[str, Tensor]
    grid_index: Tensor | None = None
    alternatives: int = 0
    is_changed: bool = False
    in_branch: bool = False

    @property
    def is_relaxed(self) -> bool:
        """Whether the value may lie between those of the distribution."""
        if self.estimator is None:
            return False
        changed = self.is_changed and (self.estimator.relaxes or self.estimator.differentiates)
        return changed or self.estimator.leaves_support


_PLAIN = Drawn(None, {})
"""As the program itself draws."""


class Sampler(Messenger):
    """Gives every random site the value that its estimator draws.

    Args:
        assignment: chooses the estimators.
        sizes: what the estimators may be told of particles and importance samples.
        grid: for each site that is summed over, the index of this branch's point, shaped like the
            site's plates (one where the elements of a plate share it).
        branch: what to do otherwise than the program as drawn.
        shift: of this lane, is added to the branch's alternative.
        memory: what is remembered of each site.
        watch: is shown each site's name and distribution before anything is drawn from it.
    """

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
    ):
        super().__init__()
        self._uniforms = uniforms or {}
        self._memory = memory or {}
        self._shift = shift
        self._branch = branch
        self._watch = watch
        self._assignment = assignment
        self._sizes = sizes
        self._grid = grid
        self.drawn: dict[str, Drawn] = {}

    def _pyro_sample(self, message: Any) -> None:
        fn, name = message["fn"], message["name"]
        if self._watch is not None:
            self._watch(name, fn)
        if name in self.drawn and self.drawn[name].is_relaxed:
            message["fn"] = unvalidated(fn)  # the model's density of the guide's value
        if message["done"] or message["is_observed"] or type(fn).__name__ == "_Subsample" or is_deterministic(fn):
            return
        estimator = self._assignment.meet(message, lambda: site_info(message, *self._sizes))
        if estimator is None:
            self.drawn[name] = _PLAIN
            return
        estimator = estimator.tuned(self._memory.get(name, {}))
        points = estimator.grid(fn)
        if points is None:
            sample = self._sample(estimator, name, fn)
            count = 0 if sample.alternatives is None else len(sample.alternatives)
            message["value"] = self._chosen(name, sample)
            changed = self._branch is not None and self._branch.site == name
            in_branch = self._branch is not None
            self.drawn[name] = drawn = Drawn(estimator, sample.extras, None, count, changed, in_branch)
            if drawn.is_relaxed:
                message["fn"] = unvalidated(fn)
        else:
            if name not in self._grid:
                raise GridGrew(name, len(points), points.device)
            index = self._grid[name]
            chosen = points.index_select(0, index.reshape(-1)).reshape((*index.shape, *points.shape[1:]))
            value = estimator.grid_value(fn, chosen.expand(fn.shape()))
            message["value"] = value
            self.drawn[name] = Drawn(estimator, {}, index)
        message["done"] = True

    def _sample(self, estimator: Estimator, name: str, fn: TorchDistribution) -> Sample:
        if estimator.draws is None:
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


class Site:
    """One sample site of one run: the trace's node, with what is derived from it on demand."""

    def __init__(
        self, node: Mapping[str, Any], kind: Kind, in_guide: bool, drawn: Drawn | None, is_relaxed: bool = False
    ):
        self.name: str = node["name"]
        self.fn: TorchDistribution = node["fn"]
        self.value: Tensor = node["value"]
        self.infer: Mapping[str, Any] = node["infer"]
        self.kind = kind
        self.in_guide = in_guide
        self.drawn = drawn
        self.is_relaxed = is_relaxed
        self._scale, self._mask = node["scale"], node["mask"]
        self.plates, self.sequence = plates_of(node)

    @property
    def is_random(self) -> bool:
        """Whether another run would draw another value here."""
        return self.kind in ("draw", "noise")

    @property
    def estimator(self) -> Estimator | None:
        return None if self.drawn is None else self.drawn.estimator

    @property
    def carries_gradient(self) -> bool:
        """Whether the value leads back to the parameters that it was drawn with."""
        if self.drawn is None or self.drawn.estimator is None:
            return True
        return self.drawn.estimator.facts.reparameterized or self.is_relaxed

    @cached_property
    def _raw_log_prob(self) -> Tensor:
        if self.is_relaxed:
            return relaxed_log_prob(self.fn, self.value)
        if self.kind == "draw" and self.estimator is not None and self.drawn is not None and not self.drawn.in_branch:
            return self.estimator.log_prob(self.fn, self.value)  # the slope of a branch is that of the whole density
        return self.fn.log_prob(self.value)

    @property
    def log_prob(self) -> Tensor:
        """The log-probability with Pyro's scale and mask: a term of a bound, or a reward."""
        return self.weighted(self._raw_log_prob)

    def weighted(self, term: Tensor) -> Tensor:
        """A term of the site's batch shape with Pyro's scale and mask."""
        return term if self.is_plain else scale_and_mask(term, self._scale, self._mask)

    @property
    def is_plain(self) -> bool:
        """Whether neither a scale nor a mask lies around the site."""
        return (self._mask is None or self._mask is True) and not isinstance(self._scale, Tensor) and self._scale == 1

    @property
    def reward(self) -> Tensor:
        """What a reward site earns: neither scaled nor discounted, nothing where it is masked."""
        term = self._raw_log_prob
        return term if self._mask is None else scale_and_mask(term, 1.0, self._mask)

    @cached_property
    def density(self) -> Tensor:
        """The log density of how the value was drawn: neither scaled nor masked.

        Zero where ``infer["active"]`` is false: the program promises that nothing depends on the draw there.
        """
        active = self.infer.get("active")
        return self._density if active is None else torch.where(active, self._density, self._density.new_zeros(()))

    @property
    def is_evaluated(self) -> bool:
        """Whether the density has been computed already."""
        return "_raw_log_prob" in vars(self)

    @property
    def _density(self) -> Tensor:
        fn = without_mask(self.fn)
        if self.estimator is not None and self.estimator.facts.reparameterized:
            return fn.log_prob(self.value.detach())
        return self._raw_log_prob if fn is self.fn else fn.log_prob(self.value)

    @property
    def active(self) -> Tensor | None:
        """Where something depends on the draw; None for everywhere."""
        return self.infer.get("active")

    @property
    def context(self) -> Any:
        """What a baseline may look at."""
        keys = _baseline_keys(self.infer)
        for key in ("nn_baseline_input", "baseline_value"):
            if keys.get(key) is not None:
                return keys[key]
        return self.infer.get("context")


def _baseline_keys(infer: Mapping[str, Any]) -> Mapping[str, Any]:
    keys = infer.get("baseline")
    return keys if keys is not None and isinstance(keys, Mapping) else {}


def plates_of(node: Mapping[str, Any]) -> tuple[Plates, SequencePath]:
    """The vectorized plates of a site, and its path through sequential ones."""
    return _plates_of_frames(tuple([frame[:4] for frame in node["cond_indep_stack"]]))


@lru_cache(maxsize=4096)
def _plates_of_frames(frames: tuple[tuple[str, int | None, int, int], ...]) -> tuple[Plates, SequencePath]:
    plates = frozenset(Plate(name, dim, size) for name, dim, size, _ in frames if dim is not None)
    # The counter of a plate object that is walked twice goes on counting.
    path = [(name, counter if counter <= size else AGAIN) for name, dim, size, counter in frames if dim is None]
    return plates, tuple(path)


def site_info(
    message: Mapping[str, Any], num_particles: int, num_importance: int = 1, weighs_guide: bool = False
) -> SiteInfo:
    """What an estimator may know of the site of a message before it serves it."""
    name, infer, plates = message["name"], message["infer"], plates_of(message)[0]
    context, marked = infer.get("context"), infer.get("differentiable", True)
    if not isinstance(marked, bool):
        raise InvalidAssignment(f"Site '{name}': infer['differentiable'] is {marked!r}. Write True or False.")
    has_context = context is not None or _baseline_keys(infer).get("nn_baseline_input") is not None
    return SiteInfo(
        name, message["fn"], plates, num_particles, has_context, num_importance, context, weighs_guide, marked
    )


def run(program: Program, sampler: Sampler) -> tuple[poutine.Trace | None, poutine.Trace]:
    """Run the guide, if there is one, then the model replayed against it."""
    args, kwargs = program.args, program.kwargs
    with sampler:
        if program.guide is None:
            return None, poutine.trace(program.model).get_trace(*args, **kwargs)
        guide = poutine.unwrap(program.guide)
        if isinstance(guide, Messenger):
            program.guide(*args, **kwargs)
            model_trace, guide_trace = guide.get_traces()
            return guide_trace, model_trace
        guide_trace = poutine.trace(program.guide).get_trace(*args, **kwargs)
        replayed = poutine.replay(program.model, trace=guide_trace)
        return guide_trace, poutine.trace(replayed).get_trace(*args, **kwargs)


def sites_of(guide_trace: poutine.Trace | None, model_trace: poutine.Trace, sampler: Sampler) -> list[Site]:
    """The sample sites of a run in program order: the guide's, then the model's."""
    return [
        *([] if guide_trace is None else _sites(guide_trace, sampler, True, {})),
        *_sites(model_trace, sampler, False, {} if guide_trace is None else guide_trace.nodes),
    ]


def _sites(trace: poutine.Trace, sampler: Sampler, in_guide: bool, replayed: Mapping[str, Any]) -> Iterator[Site]:
    for name, node in trace.nodes.items():
        if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample":
            continue
        drawn = None
        kind: Kind
        if isinstance(_innermost(node["fn"]), Unit):
            kind = "reward" if node["infer"].get("reward") else "factor"
            if kind == "factor" and in_guide and not node["fn"].has_rsample:
                kind, drawn = "draw", Drawn(ScoreFunction(), {})
        elif node["is_observed"]:
            kind = "observed"
        elif name in replayed:
            kind = "replayed"
        elif name in sampler.drawn:
            drawn = sampler.drawn[name]
            kind = "noise" if drawn.estimator is None else "draw"
        else:
            kind = "deterministic"
        is_relaxed = name in sampler.drawn and sampler.drawn[name].is_relaxed
        yield Site(node, kind, in_guide, drawn, is_relaxed)


def _innermost(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def all_random_messages(
    guide_trace: poutine.Trace | None, model_trace: poutine.Trace, sampler: Sampler
) -> dict[str, Mapping[str, Any]]:
    """The random sites that an estimator could be chosen for, by name."""
    messages: dict[str, Mapping[str, Any]] = {}
    for trace in (guide_trace, model_trace):
        for name, node in () if trace is None else trace.nodes.items():
            if name in sampler.drawn:
                messages.setdefault(name, node)
    return messages
