"""Replaces the sites of a run that depend on summed-out ones by one cost each: the log of their sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.ops import packed
from pyro.poutine import Trace
from torch import Tensor

from ppgrad.core import InvalidProgram, Unsupported
from ppgrad.core.generators import draws_up_front
from ppgrad.engine.elimination.elimination import Factor, Symbols, connected, eliminate
from ppgrad.engine.running.site import Site

Costs = Callable[[Sequence[Site]], Sequence[Tensor | None]]


def outside_of_sums(costs: Costs) -> Costs:
    """``costs``, with None for the sites inside of a sum, which has theirs."""

    def found(sites: Sequence[Site]) -> list[Tensor | None]:
        rest = [site for site in sites if not site.is_in_sum]
        if len(rest) == len(sites):
            return list(costs(sites))
        known = dict(zip(rest, costs(rest), strict=True))
        return [known.get(site) for site in sites]

    return found


def with_sums(sites: Sequence[Site], trace: Trace, nesting: int) -> list[Site]:
    """``sites`` of a run, each sum after the last of those that it is computed from; these are marked.

    Sites that share a summed-out one, directly or through others, have one sum: log Σ_z Π p, in the plates around all
    of them, masks inside and the scale, which they have in common, outside of the logarithm. As in Pyro's
    ``TraceEnum_ELBO``, but for one thing: a mask does not set a summed-out site's own probabilities to 1.

    Args:
        sites: of the run, the guide's and the model's.
        trace: the model's.
        nesting: how many dimensions belong to plates.

    Raises:
        InvalidProgram: a site depends on a summed-out one in a way that its plates do not show, or stands in two
            plates that are not nested.
        Unsupported: scales that differ, or have dimensions.
    """
    own = [site for site in sites if not site.in_guide and _depends(site, nesting)]
    if not own:
        return list(sites)
    trace.symbolize_dims()
    factors = [_factor(site, trace) for site in own]
    variables = frozenset(dim for factor in factors for dim in factor.dims) - frozenset(trace.plate_to_symbol.values())
    after: dict[Site, list[Site]] = {}
    for places in connected(factors, variables):
        members = [own[place] for place in places]
        after.setdefault(members[-1], []).append(_sum(members, factors, places, variables, trace))
        for member in members:
            member.is_in_sum = True
    return [one for site in sites for one in (site, *after.get(site, ()))]


def _depends(site: Site, nesting: int) -> bool:
    """Whether a site is summed out, or depends on one that is: it has dimensions to the left of all plates."""
    if site.kind == "enumerated":
        return True
    shapes = [site.fn.batch_shape, site.value.shape[: site.value.dim() - len(site.fn.event_shape)], site.mask_shape]
    return any(size > 1 for shape in shapes for size in shape[: max(len(shape) - nesting, 0)])


def _factor(site: Site, trace: Trace) -> Factor:
    dims = trace.nodes[site.name]["infer"]["_dim_to_symbol"]
    plates = frozenset(trace.plate_to_symbol[plate.name] for plate in site.plates)
    try:
        return Factor(packed.pack(site.factor, dims), plates)
    except ValueError as error:
        shape = tuple(site.factor.shape)
        raise InvalidProgram(
            f"Site '{site.name}' has a log density of shape {shape}, with dimensions that belong neither to a plate "
            "around it nor to a summed-out site that it may depend on. Write pyro.markov(…, history=…) as far back as "
            "it looks, keep what depends on a site of a plate inside of the plate, and declare every batch by a plate."
        ) from error


def _sum(members: Sequence[Site], factors: Sequence[Factor], places: Any, variables: Symbols, trace: Trace) -> Site:
    summed = [site for site in members if site.kind == "enumerated"] or members
    name = f"sum over '{summed[0].name}'" + (f" and {len(summed) - 1} more" if len(summed) > 1 else "")
    scale = _common_scale(members)
    try:
        result = eliminate(factors, places, variables)
    except NotImplementedError as error:
        raise InvalidProgram(_not_nested(members, summed)) from error
    density = packed.unpack(result.density, trace.symbol_to_dim)
    frames = {frame.name: frame for site in members for frame in trace.nodes[site.name]["cond_indep_stack"]}
    vectorized = [frame for name, frame in frames.items() if trace.plate_to_symbol.get(name) in result.plates]
    node = {
        "name": name,
        "fn": dist.Unit(density),
        "value": density.new_empty((*density.shape, 0)),
        "infer": {},
        "scale": scale,
        "mask": None,
        "cond_indep_stack": (*_loops_around(members, trace), *vectorized),
    }
    site = Site(node, "sum", False, None)
    site.members = tuple(member.name for member in members)
    return site


def _loops_around(members: Sequence[Site], trace: Trace) -> list[Any]:
    """The iterations of sequential plates that all of them are in."""
    stacks = [trace.nodes[site.name]["cond_indep_stack"] for site in members]
    loops = [[frame for frame in stack if not frame.vectorized] for stack in stacks]
    first, depth = loops[0], 0
    while depth < len(first) and all(depth < len(one) and one[depth] == first[depth] for one in loops):
        depth += 1
    return first[:depth]


def _common_scale(members: Sequence[Site]) -> float | Tensor:
    """The scale of all members: inside of a logarithm it would be another model."""
    first = members[0].scale
    for site in members:
        if isinstance(site.scale, Tensor) and site.scale.dim():
            raise Unsupported(
                f"Site '{site.name}' has a scale with dimensions, and its density is part of a sum over "
                f"'{members[0].name}'. Write one number in poutine.scale, or draw '{members[0].name}' in the guide."
            )
        if not _same(site.scale, first):
            raise Unsupported(
                f"Sites '{members[0].name}' and '{site.name}' have different scales, and one sum, over "
                f"'{members[0].name}', has both: its logarithm can be scaled as a whole alone. Put both into the same "
                "subsampled plate or poutine.scale, or draw the summed-out site in the guide."
            )
    return first


def _same(one: float | Tensor, other: float | Tensor) -> bool:
    if one is other:
        return True
    if any(isinstance(x, Tensor) and (draws_up_front() or _is_in_lanes(x)) for x in (one, other)):
        return True  # the first run, outside of lanes, has compared them
    return math.isclose(float(one), float(other), rel_tol=1e-6)


def _is_in_lanes(tensor: Tensor) -> bool:
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(tensor) or functorch.is_gradtrackingtensor(tensor)


def _not_nested(members: Sequence[Site], summed: Sequence[Site]) -> str:
    deepest = max(members, key=lambda site: len(site.plates))
    plates = " and ".join(f"'{plate.name}'" for plate in sorted(deepest.plates))
    names = ", ".join(f"'{site.name}'" for site in summed[:3])
    return (
        f"Site '{deepest.name}' stands in the plates {plates} and depends on summed-out sites of both ({names}): their "
        "joint values are too many to sum. Make one of the plates sequential, for i in pyro.plate(…), or draw one of "
        "the sites in the guide."
    )
