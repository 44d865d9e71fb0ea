"""From what a run keeps to its record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import Draw, sum_plates
from ppgrad.engine.branches import Run, event_dim_of
from ppgrad.engine.entries import Entry, Record, Stopped, padded
from ppgrad.engine.grid import GridSite


def record_of(run: Run, discounts: Sequence[float], grid: Mapping[str, GridSite], depth: int) -> Record:
    """The record of one run over all lanes.

    Args:
        run: its sites and what is kept of them, lanes in front.
        discounts: of the rewards that come next, by site.
        grid: the sites that are summed over.
        depth: how many plate dimensions every term is padded to.
    """
    # A site not yet reached is shared by all of its grid points; its share becomes its weight.
    log_weight: Tensor | float = -math.log(math.prod(site.points for site in grid.values()))
    entries = []
    for site, kept, discount in zip(run.sites, run.tensors, discounts, strict=True):
        batch = len(site.fn.batch_shape)
        if "log_weight" in kept:
            own = sum_plates(padded(kept["log_weight"], depth), grid[site.name].joint)
            log_weight = log_weight + own + math.log(grid[site.name].points)
        cost = padded(kept["cost"], depth) if "cost" in kept else None
        if cost is not None and grid:
            cost = _weighted(cost, log_weight)
        reward = padded(kept["reward"], depth) if "reward" in kept else None
        if reward is not None and grid:
            reward = _weighted(reward, log_weight).detach()
        active = padded(kept["active"], depth) if "active" in kept else None
        draw = alternatives = base = relaxed = gradients = None
        if "log_prob" in kept:
            draw = Draw(
                site.name,
                padded(kept["value"], depth, batch),
                padded(kept["log_prob"], depth),
                site.plates,
                event_dim_of(site),
                kept.get("context"),
                {key: padded(extra, depth, batch) for key, extra in kept["extras"].items()},
                discount,
                active,
            )
        if "alternatives" in kept:
            alternatives = torch.stack([padded(cost, depth, batch) for cost in kept["alternatives"]])
            base = padded(kept["base"], depth, batch)
            if kept["relaxed"]:
                relaxed = torch.stack(kept["relaxed"])
            if kept["gradients"]:
                gradients = torch.stack([padded(gradient, depth, batch) for gradient in kept["gradients"]])
        entries.append(
            Entry(
                site.name,
                site.plates,
                site.sequence,
                site.is_random,
                site.name in grid,
                site.estimator,
                cost,
                draw,
                alternatives,
                base,
                relaxed,
                gradients,
                _stopped(kept, depth),
                reward=reward,
                active=active,
            )
        )
    return Record(tuple(entries))


def _weighted(cost: Tensor, log_weight: Tensor | float) -> Tensor:
    weight = torch.as_tensor(log_weight).exp()
    return weight * torch.where(weight > 0, cost, torch.zeros_like(cost))


def _stopped(kept: Mapping[str, Any], depth: int) -> Stopped | None:
    if "stopped" not in kept:
        return None
    terms = {name: padded(term, depth) for name, term in kept["stopped"].items()}
    return Stopped(terms.get("cost"), terms.get("density"))
