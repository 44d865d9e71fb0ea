"""What one ordinary run of a program tells: mistakes in its structure, its numbers, its graph."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import pyro.poutine as poutine
import torch
from pyro.distributions import TorchDistribution, Unit
from pyro.infer.util import is_validation_enabled
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor
from torch.distributions import constraints

from ppgrad.core import Estimator, NoGradientPath, NonFinite, Unsupported
from ppgrad.core.distributions import distribution_name
from ppgrad.core.edges import cut_off, moving_edge
from ppgrad.engine.running.site import Site
from ppgrad.engine.running.validity import lies_outside, outside


def check_structure(
    guide_trace: poutine.Trace | None,
    model_trace: poutine.Trace,
    max_plate_nesting: float,
    model_may_draw: bool,
) -> None:
    """Pyro's own checks, with its own errors and warnings, as ``Trace_ELBO`` makes them.

    Where the model may draw sites that the guide lacks, the warning of those is left out.
    """
    if not is_validation_enabled():
        return
    if guide_trace is not None:
        with warnings.catch_warnings():
            if model_may_draw:
                warnings.filterwarnings("ignore", message="Found vars in model but not guide")
            check_model_guide_match(model_trace, guide_trace, max_plate_nesting)
    for trace in (guide_trace, model_trace):
        if trace is None:
            continue
        trace.compute_log_prob()
        for node in trace.nodes.values():
            if node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample":
                check_site_shape(node, max_plate_nesting)


def check_finite(sites: Sequence[Site], costs: Sequence[Tensor | None]) -> None:
    """Raise at the first site whose value, log-probability or reward is NaN or infinite.

    Raises:
        NonFinite: names the site, the number, and the distribution's parameter it comes from.
        OutOfSupport: the value is no value of the distribution.
    """
    for site, cost in zip(sites, costs, strict=True):
        matters = cost is not None or site.is_random
        if site.kind == "reward":
            bad = _first_bad(site.weighted_log_prob)
            if bad is not None:
                raise NonFinite(f"Reward site '{site.name}' is {bad:g}. Keep rewards finite.")
        elif matters:
            bad = None if site.kind == "observed" else _first_bad(site.value)  # missing data may be written as NaN
            if bad is None:
                bad = _first_bad(site.weighted_log_prob)
            if bad is not None:
                check_parameters(site.name, site.fn)
                if lies_outside(site):
                    raise outside([site.name])
                raise NonFinite(f"At site '{site.name}' the value or its log-probability is {bad:g}. Keep it finite.")


def check_edges(sites: Sequence[Site], costs: Sequence[Tensor | None]) -> None:
    """Raise where draws or probabilities lie at an edge at which a gradient would be wrong in silence.

    Raises:
        Unsupported: a probability is 0 or 1 and moves, so that a value that is never drawn has a gradient; or the log
            density of draws that are cut off at the edge of their support is a cost.
    """
    for site, cost in zip(sites, costs, strict=True):
        if site.kind not in ("draw", "enumerated"):
            continue
        edge = moving_edge(site.fn)
        if edge is not None:
            raise Unsupported(
                f"At site '{site.name}' a probability of {distribution_name(site.fn)} is exactly {edge:g}, and a "
                "parameter moves it: values that cannot be drawn have a gradient there, which estimators take to be 0."
                "\nKeep it inside of (0, 1), or write logits=."
            )
        reason = None if cost is None else cut_off(site.fn)
        if reason is not None:
            raise Unsupported(
                f"The log density of site '{site.name}' is a cost, and {reason}.\nKeep that parameter larger, or write "
                "the site as the logarithm of its value."
            )


def check_parameters(name: str, fn: TorchDistribution) -> None:
    """Raise if a parameter of a site's distribution is NaN, infinite or out of range.

    A logit of −∞ of a Categorical is none of these: it says that a choice is impossible.
    """
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    if isinstance(fn, Unit):
        return  # a reward or a factor, of which `check_finite` says more
    for parameter, constraint in getattr(fn, "arg_constraints", {}).items():
        values = vars(fn).get(parameter)
        if not isinstance(values, Tensor):
            continue
        values = values.detach()
        allowed = torch.isfinite(values)
        if parameter == "logits" and constraint.event_dim == 1:  # of a choice, not of a yes or no
            allowed |= values == -float("inf")
        elif not constraints.is_dependent(constraint) and constraint.event_dim == 0:  # type: ignore[no-untyped-call]
            allowed &= constraint.check(values)
        if not bool(allowed.all()):
            bad = float(values[~allowed][0])
            mend = " A logit of ±100 is as sure." if parameter == "logits" and not math.isnan(bad) else ""
            raise NonFinite(
                f"At site '{name}' parameter '{parameter}' of {distribution_name(fn)} is {bad:g}. Keep it finite and "
                f"in its range.{mend}"
            )


def _first_bad(tensor: Tensor) -> float | None:
    if not tensor.is_floating_point():
        return None
    bad = tensor.detach()[~torch.isfinite(tensor.detach())]
    return float(bad[0]) if bad.numel() else None


def check_gradient_paths(
    sites: Sequence[Site], costs: Sequence[Tensor | None], strict: bool, estimators: Mapping[str, Estimator]
) -> list[str]:
    """Warn of pathwise sites from which no gradient reaches any cost but their own density, and name them.

    The density of a later draw is a way to the costs, too, where a score passes their slope on.

    Raises:
        Unsupported: under ``strict``.
    """
    pathwise = [
        site
        for site in sites
        if site.name in estimators and site.value.requires_grad
        if estimators[site.name].facts.reparameterized and not estimators[site.name].facts.finds_jumps
    ]
    graphs = [(s, c) for s, c in zip(sites, costs, strict=True) if c is not None and c.requires_grad]
    missed = [
        site.name
        for site in _unreached(pathwise, [c for s, c in graphs if not (s.in_guide and s.is_random)])
        if _unreached([site], [c for s, c in graphs if s.name != site.name])
    ]
    if missed:
        scored = [s for s in sites if s.name in estimators and s.is_random and not s.carries_gradient]
        scores = [site.density for site in scored if site.density.requires_grad]
        missed = [site.name for site in _unreached([s for s in pathwise if s.name in missed], scores)]
    if not missed:
        return []
    more = f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
    kind = type(estimators[missed[0]]).__name__
    message = (
        f"{kind} site '{missed[0]}'{more}: no gradient path leads from it to any cost, so its gradient is "
        f"missing. Choose the score function: sites={{'{missed[0]}': ScoreFunction()}}."
    )
    if strict:
        raise Unsupported(message)
    warnings.warn(message, NoGradientPath, stacklevel=2)
    return missed


def check_relaxed_path(site: Site, later: Sequence[Tensor | None]) -> None:
    """Raise if a relaxed value passes no gradient on to any of the costs and densities after it.

    Raises:
        Unsupported: the program cuts the gradient, by rounding or by indexing.
    """
    costs = [cost for cost in later if cost is not None and cost.requires_grad]
    if site.value.requires_grad and any(cost is not None for cost in later) and _unreached([site], costs):
        raise Unsupported(
            f"{type(site.estimator).__name__} at site '{site.name}' runs the program with a relaxed value, and no "
            "gradient path leads from it to any cost: the program rounds it, or indexes with it.\nChoose an estimator "
            f"that keeps values discrete: sites={{'{site.name}': LocalExpectation()}}."
        )


def _unreached(sites: Sequence[Site], costs: Sequence[Tensor]) -> list[Site]:
    if not sites or not costs:
        return list(sites)
    total = torch.stack([cost.sum() for cost in costs]).sum()
    gradients = torch.autograd.grad(total, [site.value for site in sites], allow_unused=True, retain_graph=True)
    return [site for site, gradient in zip(sites, gradients, strict=True) if gradient is None]
