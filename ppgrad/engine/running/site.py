"""One sample site of one run, and what an estimator may know of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import torch
from pyro.distributions import TorchDistribution, is_validation_enabled
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ppgrad.core import Estimator, InvalidAssignment, InvalidProgram, OutOfSupport, Plate, Plates, SiteInfo
from ppgrad.core.distributions import detached, distribution_name, without_mask
from ppgrad.engine.dependence.dependence import SequencePath
from ppgrad.engine.dependence.order import AGAIN
from ppgrad.estimators.discrete.relaxation import relaxed_log_prob

Kind = Literal["draw", "noise", "replayed", "observed", "reward", "factor", "deterministic", "enumerated", "sum"]


class Drawn(NamedTuple):
    """How the sampler served a site; ``in_branch``, the run is a branch, which differs from the program as drawn.

    ``log_weight`` is that of a point of a grid.
    """

    estimator: Estimator | None
    extras: Mapping[str, Tensor]
    log_weight: Tensor | None = None
    alternatives: int = 0
    is_changed: bool = False
    in_branch: bool = False

    @property
    def is_relaxed(self) -> bool:
        """Whether the value may lie between those of the distribution."""
        if self.estimator is None:
            return False
        needs = self.estimator.needs
        return needs.outside_support or (self.is_changed and (needs.relaxed or needs.slopes))


PLAIN = Drawn(None, {})
"""As the program itself draws."""


class Site:
    """One sample site of one run: the trace's node, with what is derived from it on demand."""

    def __init__(
        self,
        node: Mapping[str, Any],
        kind: Kind,
        in_guide: bool,
        drawn: Drawn | None,
        is_relaxed: bool = False,
        is_bounded: bool = False,
    ):
        self.name: str = node["name"]
        self.fn: TorchDistribution = node["fn"]
        self.value: Tensor = node["value"]
        self.infer: Mapping[str, Any] = node["infer"]
        self.kind = kind
        self.is_random = kind in ("draw", "noise")
        """Whether another run would draw another value here."""
        self.in_guide = in_guide
        self.drawn = drawn
        self.is_relaxed = is_relaxed
        self.is_bounded = is_bounded
        self.members: tuple[str, ...] = (self.name,)
        """The sites whose densities its own is computed from: of a sum all that it has absorbed."""
        self.is_in_sum = False
        """Whether its density is part of a sum, and no cost by itself."""
        self._scale, self._mask = node["scale"], node["mask"]
        self.plates, self.sequence, self.subsampling = _read_frames(node)

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
        fixed = self.kind == "draw" and self.estimator is not None and self.estimator.needs.fixed_density
        if fixed and self.drawn is not None and not self.drawn.in_branch:
            return detached(self.fn).log_prob(self.value)  # the slope of a branch is that of the whole density
        try:
            density = self.fn.log_prob(self.value)
        except RuntimeError:
            self._check_observed_shape()
            raise
        except ValueError as error:
            self._check_observed_shape()
            if not is_validation_enabled() or not bool(torch.isfinite(self.value).all()):
                raise
            raise OutOfSupport(self._no_density(error)) from error
        if not self.is_bounded:
            return density
        inside: Tensor = self.fn.support.check(self.value)  # an unvalidated distribution does not look
        return torch.where(inside, density, density.new_full((), -math.inf))

    def _check_observed_shape(self) -> None:
        """Raise if an observed value does not fit its distribution."""
        batch, event, given = self.fn.batch_shape, self.fn.event_shape, getattr(self.value, "shape", None)
        if self.kind != "observed" or given is None:
            return
        pairs = zip(reversed(given), reversed(batch + event), strict=False)
        if len(given) < len(event) or any(size != wanted and 1 not in (size, wanted) for size, wanted in pairs):
            around = ", ".join(sorted(f"'{plate.name}' of size {plate.size}" for plate in self.plates)) or "none"
            raise InvalidProgram(
                f"At observed site '{self.name}' the value has shape {tuple(given)}, and {distribution_name(self.fn)} "
                f"has batch shape {tuple(batch)} and event shape {tuple(event)} (plates around it: {around}). "
                "Observe a value for each element."
            )

    def _no_density(self, error: ValueError) -> str:
        """What Pyro says where a value has no density, and what to do."""
        fn, value = self.fn, self.value
        shapes = f"{tuple(value.shape)}, batch shape {tuple(fn.batch_shape)}, event shape {tuple(fn.event_shape)}"
        mend = (
            f"Let the guide draw '{self.name}' from a distribution with the model's support, such as LogNormal for "
            "positive values, or Beta for those between 0 and 1."
            if self.kind == "replayed"
            else "Observe values that the distribution can have, in its shape."
        )
        return f"Error while computing log_prob at site '{self.name}': {error}\nThe value has shape {shapes}. {mend}"

    @property
    def weighted_log_prob(self) -> Tensor:
        """The log-probability with Pyro's scale and mask: a term of a bound, or a reward."""
        return self.weighted(self._raw_log_prob)

    def weighted(self, term: Tensor) -> Tensor:
        """A term of the site's batch shape with Pyro's scale and mask."""
        return term if self.is_plain else scale_and_mask(term, self._scale, self._mask)

    @property
    def scale(self) -> float | Tensor:
        """What Pyro multiplies the log-probability by."""
        return self._scale

    @property
    def mask_shape(self) -> torch.Size:
        """The shape of the mask."""
        return self._mask.shape if isinstance(self._mask, Tensor) else torch.Size()

    @property
    def factor(self) -> Tensor:
        """The log density as a factor of a sum: masked, unless the site itself is summed out, and not scaled."""
        if self.kind == "enumerated":
            density: Tensor = without_mask(self.fn).log_prob(self.value)
        else:
            density = self._raw_log_prob if self._mask is None else scale_and_mask(self._raw_log_prob, 1.0, self._mask)
        return density.float() if density.dtype in (torch.bfloat16, torch.float16) else density

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
    def is_replayed_in_closed_form(self) -> bool:
        """Whether the cost of a replayed site does not read its value: its density has not been asked for."""
        return self.kind == "replayed" and not self.is_evaluated

    def is_weighted_like(self, other: Site) -> bool:
        """Whether both are known to have the same scale and the same mask."""
        scales = self._scale is other._scale or (
            not isinstance(self._scale, Tensor) and not isinstance(other._scale, Tensor) and self._scale == other._scale
        )
        masks = self._mask is other._mask or {self._mask, other._mask} == {None, True}
        return scales and masks

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
    return _read_frames(node)[:2]


def _read_frames(node: Mapping[str, Any]) -> tuple[Plates, SequencePath, Mapping[str, float]]:
    return _plates_of_frames(tuple([frame[:5] for frame in node["cond_indep_stack"]]))


@lru_cache(maxsize=4096)
def _plates_of_frames(frames: tuple[Any, ...]) -> tuple[Plates, SequencePath, Mapping[str, float]]:
    plates, path, subsampling = [], [], {}
    for name, dim, size, counter, full_size in frames:
        if full_size not in (None, size):
            subsampling[name] = full_size / size
        if dim is None:  # the counter of a plate object that is walked twice goes on counting
            path.append((name, counter if counter <= size else AGAIN))
            continue
        plates.append(Plate(name, dim, size))
    return frozenset(plates), tuple(path), subsampling


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
