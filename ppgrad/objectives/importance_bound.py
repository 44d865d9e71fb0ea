"""What the bounds by importance weights share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from ppgrad.core import Estimator, InvalidInput, NotABound, Unsupported
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.record import Entry, Record
from ppgrad.engine.running.site import Site
from ppgrad.objectives._shared.lanes import RunsOfPart
from ppgrad.objectives._shared.requirements import needs_guide
from ppgrad.objectives.log_mean_exp import LogMeanExp

Per = Literal["slice", "joint"] | None


class ImportanceBound(LogMeanExp):
    """A bound of log p(x) by weights w = p(x, z) / q(z) of K samples from a guide. Abstract.

    Where the slices of a plate share no draw, each has weights of its own: the bound is Σ_n L_K(w_n1, …, w_nK), for the
    evidence is Σ_n log p(x_n), and one weight for all slices would waste the samples. A plate that is subsampled, N of
    it to n, has its scale N / n outside of the logarithm, and all K samples are of the same data. Slices that share a
    draw, such as a global latent of the guide, have one joint weight; so has everything where an estimator relaxes or
    differentiates the cost of another run, and where a value leaves torch. A plate that is subsampled within a joint
    weight has its scale inside of the logarithm, where the mean over subsamples may lie above the evidence: a
    `NotABound` warning says so.

    Args:
        estimator: serves every site that nothing else chooses for.
        per: ``"slice"`` for weights of each slice, or an error where slices share a draw; ``"joint"`` for one weight;
            None takes slices where that is right.
        options: see `LogMeanExp`.

    Attributes:
        weights: of the latest estimate: "joint", or the plates whose slices have weights of their own.

    Raises:
        InvalidInput: ``per`` is none of these.
        Unsupported: when run: ``per="slice"`` where slices share a draw; under ``strict`` what `NotABound` warns of.

    Source: Burda, Grosse & Salakhutdinov (2016), Importance weighted autoencoders, eq. 8, for each datum.
    """

    weighs_guide = True
    shares_data = True
    sums_out = True

    def __init__(self, estimator: Estimator | None = None, *, per: Per = None, **options: Any):
        if per not in ("slice", "joint", None):
            raise InvalidInput(f"{type(self).__name__}(per={per!r}): write 'slice', 'joint' or None.")
        self.per = per
        self.weights = ""
        self._said: set[str] = set()
        super().__init__(estimator, **options)

    def __repr__(self) -> str:
        return super().__repr__() + (f"  # weights: {self.weights}" if self.weights else "")

    @property
    def splits_slices(self) -> bool:
        return self.per != "joint"

    def check(self, program: Program) -> None:
        needs_guide(self, program)

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        return importance_costs(sites)

    def parts(self, records: Sequence[Record]) -> list[RunsOfPart]:
        found = super().parts(records)
        plates = sorted({plate.name for part in found for plate in part.plates})
        if self.per == "slice" and not plates:
            raise Unsupported(f"{type(self).__name__}(per='slice'): {_why_joint(records[0])} Write per=None.")
        self.weights = f"of each slice of {', '.join(plates)}" if plates else "joint"
        self._check_scales(records[0], found)
        return found

    def _check_scales(self, record: Record, parts: Sequence[RunsOfPart]) -> None:
        """Warn where a subsampled plate has its scale inside of a logarithm of several weights."""
        if not record.subsampling or self.num_importance == 1:
            return
        for part in parts:
            apart = {plate.name for plate in part.plates}
            around = {name for entry in part.entries(record) for name in _plates_around(entry)}
            within = sorted((record.subsampling.keys() & around) - apart)
            if within:
                self._say_no_bound(within[0])

    def _say_no_bound(self, plate: str) -> None:
        message = (
            f"{type(self).__name__}: plate '{plate}' is subsampled, and its slices have one joint weight: with its "
            "scale inside of the logarithm this is no bound, and may lie above the evidence. Write the plate without "
            "subsample_size, or take ELBO(); slices whose latents are all drawn inside of the plate have own weights."
        )
        if self.strict:
            raise Unsupported(message)
        if message not in self._said:  # once, and not at each estimate
            self._said.add(message)
            warnings.warn(message, NotABound, stacklevel=2)


def _plates_around(entry: Entry) -> list[str]:
    return [*(plate.name for plate in entry.plates), *(name for name, _ in entry.sequence)]


def importance_costs(sites: Sequence[Site]) -> list[Tensor | None]:
    """log q − log p of each site; every gradient counts, since the weights do not average it out."""
    return [
        site.weighted_log_prob if site.in_guide and site.kind != "reward" else -site.weighted_log_prob for site in sites
    ]


def _why_joint(record: Record) -> str:
    dependence = record.dependence
    if dependence.notes:
        return f"a value leaves torch ({dependence.notes[0]}), and what depends on it afterwards is not known."
    plates = {plate for site in dependence.sites for plate in site.plates}
    for place in dependence.draws:
        site = dependence.sites[place]
        for plate in plates - site.plates:
            inside = [cost for cost in dependence.sites if cost.has_cost and plate in cost.plates]
            if inside:
                return f"'{site.name}' lies outside of plate '{plate.name}', and its slices share it."
        if site.plates & dependence.coupled(place):
            return f"slices of '{next(iter(site.plates)).name}' share what is computed from '{site.name}'."
    return "no plate has slices that share no draw, or an estimator relaxes or differentiates the cost of another run."
