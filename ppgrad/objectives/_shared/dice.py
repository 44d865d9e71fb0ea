"""Surrogates whose derivatives of every order estimate those of the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import Draw, Memory, Plates, Signal, Unsupported, sum_lane, sum_plates
from ppgrad.engine.running.record import Record, Served
from ppgrad.estimators import Enumerate, Pathwise, ScoreFunction

Memories = Mapping[str, Memory]


def magic_box(log_prob: Tensor) -> Tensor:
    """□(ℓ) = exp(ℓ − ⊥ℓ): one, with the derivatives of a likelihood ratio.

    Source: Foerster et al. (2018), DiCE, eq. 5.
    """
    return (log_prob - log_prob.detach()).exp()


def dice(record: Record, memories: Memories) -> Tensor:
    """Σ_c □(Σ_{w ≺ c} log p_w) c + Σ_w b_w (1 − □(log p_w)) □(Σ_{v ≺ w} log p_v), over costs c and draws w.

    w ≺ c says that c depends on w, slice by slice where a plate's slices are apart. The baselines b_w leave every
    order's mean alone.

    Args:
        record: of all lanes; its costs keep the terms whose gradient has mean zero.
        memories: of the baselines, by site.

    Returns:
        A scalar, summed over lanes.

    Raises:
        Unsupported: a site is served by another estimator than `ScoreFunction`, `Pathwise`, `Enumerate`.

    Source: Foerster et al. (2018), DiCE: the infinitely differentiable Monte Carlo estimator, eq. 6;
    Mao et al. (2019), A baseline for any order gradient estimation, eq. 6.
    """
    check_any_order(record)
    signals = {draw.name: (signal, estimator) for draw, signal, estimator in record.served()}
    total = torch.zeros(())
    for entry, (of_value, of_cost) in zip(record.entries, record.upstream(), strict=True):
        baseline = None if entry.draw is None else _baseline(entry.draw, *signals[entry.name], memories)
        if entry.draw is not None and baseline is not None:
            before = magic_box(_reduced(of_value, entry.plates))
            total = total + (baseline * (1 - magic_box(entry.draw.log_prob)) * before).sum()
        if entry.cost is not None:
            total = total + (magic_box(_reduced(of_cost, entry.plates)) * entry.cost).sum()
    return total


def joint_dice(
    records: Sequence[Record], served: Sequence[Served], values: Tensor, offsets: Tensor, memories: Memories
) -> Tensor:
    """□(Σ_w log p_w) v for each particle, w over the draws of all K runs, with the same baselines.

    Args:
        records: of all runs.
        served: the draws of all runs with the signals that they share.
        values: what K runs cost together, with its graph, ``(particles,)``.
        offsets: what of that is the other runs' alone, for each run, ``(particles × K,)``.
        memories: of the baselines, by site.

    Returns:
        A scalar, summed over particles.
    """
    lanes = []
    for record in records:
        check_any_order(record)
        own = [sum_lane(e.draw.log_prob).reshape(-1) for e in record.entries if e.draw is not None]
        count = len(next(cost for cost in record.costs))
        lanes.append(torch.stack(own).sum(0) if own else next(iter(record.costs)).new_zeros(count))
    runs = torch.cat(lanes)
    everything = runs.reshape(len(values), -1).sum(1)
    total = (magic_box(everything) * values).sum()
    if len(records) > 1:
        return total
    upstream, size = torch.zeros_like(runs), len(runs) // len(values)
    for draw, signal, estimator in served:
        score = sum_lane(draw.log_prob).reshape(-1)
        baseline = _baseline(draw, signal, estimator, memories)
        constant = offsets if baseline is None else offsets + baseline.reshape(-1)
        others = everything.repeat_interleave(size) - runs + upstream
        total = total + (constant * (1 - magic_box(score)) * magic_box(others)).sum()
        upstream = upstream + score
    return total


def check_any_order(record: Record) -> None:
    """Raise if a site's estimator is of the first order only."""
    for entry in record.entries:
        if entry.estimator is not None and not isinstance(entry.estimator, ScoreFunction | Pathwise | Enumerate):
            raise Unsupported(
                f"{type(entry.estimator).__name__} cannot serve site '{entry.name}' here: it estimates first "
                "derivatives only.\nChoose ScoreFunction(), Pathwise() or Enumerate() for it: "
                f"sites={{'{entry.name}': ScoreFunction()}}."
            )


def _baseline(draw: Draw, signal: Signal, estimator: Any, memories: Memories) -> Tensor | None:
    if not isinstance(estimator, ScoreFunction) or estimator.baseline is None:
        return None
    return estimator.baseline.predict(draw, signal, memories.get(draw.name, {})).detach()


def _reduced(sums: Mapping[Plates, Tensor], plates: Plates) -> Tensor:
    total = torch.zeros(())
    for inside, term in sums.items():
        total = total + sum_plates(term, inside - plates)
    return total
