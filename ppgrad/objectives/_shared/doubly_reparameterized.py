"""The direct term of a bound whose continuous guide sites are reparameterized twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ppgrad.core import Unsupported
from ppgrad.engine.running.record import Entry, Record
from ppgrad.objectives._shared.lanes import RunsOfPart


def doubly_reparameterized(part: RunsOfPart, weights: Tensor, sharpness: float) -> Tensor:
    """Σ_k v_k c̄_k + w̃_k (r_k − r̄_k + ℓ̄_k), with v = (1 − s) w̃ + s w̃², averaged over particles.

    A bar holds all parameters fixed, so that the values drawn alone carry a gradient. c is the whole
    cost of sample k; r is it without log q of the sites reparameterized twice, so that r − r̄ has the
    gradient of the parameters that are not theirs; ℓ is the log density of the other random sites.
    It follows from E[w̃ ∂_φ log q(z)] = E[s (w̃ − w̃²) ∂_z log w ∂_φ z + w̃ ∂_z ℓ ∂_φ z], q the density
    of the sites reparameterized twice, z drawn from it and the others from ℓ.

    Args:
        part: of all samples.
        weights: w̃, normalized over the samples of a particle, ``(particles, *slices, K)``.
        sharpness: s; 1 for the importance-weighted bound.

    Raises:
        Unsupported: a reparameterized site of another kind.

    Source: Tucker et al. (2019), eq. 7 and 8; for the Rényi bound, section 6.
    """
    for record in part.records:
        _check(record)
    path = (1 - sharpness) * weights + sharpness * weights**2
    terms = [_terms(part.entries(record)) for record in part.records]
    still, rest = ([own for own, _ in terms], [own for _, own in terms])
    zero = torch.zeros_like(weights)
    of_still = part.total(still) if any(still) else zero
    of_rest = part.total(rest) if any(rest) else zero
    return part.scale * (path * of_still + weights * of_rest).sum() / len(weights)


def _terms(entries: Sequence[Entry]) -> tuple[list[Tensor], list[Tensor]]:
    """The terms of c̄, and of r − r̄ + ℓ̄."""
    still, rest = [], []
    for entry in entries:
        twice = entry.estimator is not None and entry.estimator.needs.fixed_parameters
        if entry.cost is not None and not twice:
            rest.append(entry.cost)
        if entry.stopped is None:
            continue
        if entry.stopped.cost is not None:
            still.append(entry.stopped.cost)
            rest += [] if twice else [-entry.stopped.cost]
        if entry.stopped.density is not None and not twice:
            rest.append(entry.stopped.density)
    return still, rest


def _check(record: Record) -> None:
    twice = [e for e in record.entries if e.estimator is not None and e.estimator.needs.fixed_parameters]
    for entry in record.entries if twice else ():
        estimator = entry.estimator
        if estimator is not None and estimator.facts.reparameterized and not estimator.needs.fixed_parameters:
            name = type(twice[0].estimator).__name__
            raise Unsupported(
                f"{name} at site '{twice[0].name}' and {type(estimator).__name__} at site '{entry.name}' cannot share "
                f"a bound: all reparameterized sites take {name}, or none.\nChoose {name}() for both: "
                f"sites={{'{entry.name}': {name}()}}."
            )
