"""What one ordinary run of a program tells: mistakes in its structure, its numbers, its graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pyro.poutine as poutine
import torch
from pyro.infer.util import is_validation_enabled
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor
from torch.distributions import constraints

from ppgrad.core import NoGradientPath, NonFinite, Unsupported
from ppgrad.core.distributions import distribution_name
from ppgrad.engine.record import Site


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
    """
    for site, cost in zip(sites, costs, strict=True):
        if site.kind == "reward":
            bad = _first_bad(site.log_prob)
            if bad is not None:
                raise NonFinite(f"Reward site '{site.name}' is {bad:g}. Keep rewards finite.")
            continue
        parameter = _bad_parameter(site)
        for what, tensor in (
            ("its value", site.value),
            ("its log-probability", site.log_prob if cost is not None or site.is_random else None),
            ("its cost", cost),
        ):
            bad = None if tensor is None else _first_bad(tensor)
            if bad is not None or (parameter is not None and parameter[2]):
                if parameter is not None:
                    what, bad = f"parameter {parameter[0]!r} of {distribution_name(site.fn)}", parameter[1]
                raise NonFinite(f"At site '{site.name}' {what} is {bad:g}. Keep it finite and in its range.")


def _first_bad(tensor: Tensor) -> float | None:
    if not tensor.is_floating_point():
        return None
    bad = tensor.detach()[~torch.isfinite(tensor.detach())]
    return float(bad[0]) if bad.numel() else None


def _bad_parameter(site: Site) -> tuple[str, float, bool] | None:
    """A parameter that is not finite or out of range, and whether that alone is a mistake."""
    fn = site.fn
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    for name, constraint in getattr(fn, "arg_constraints", {}).items():
        parameter = vars(fn).get(name)
        if not isinstance(parameter, Tensor):
            continue
        bad = _first_bad(parameter)
        if bad is not None:
            return name, bad, bad != bad
        dependent = constraints.is_dependent(constraint)  # type: ignore[no-untyped-call]
        if not dependent and not bool(constraint.check(parameter).all()):
            outside = parameter.detach()[~constraint.check(parameter)] if constraint.event_dim == 0 else parameter
            return name, float(outside.reshape(-1)[0]), True
    return None


def check_gradient_paths(sites: Sequence[Site], costs: Sequence[Tensor | None], strict: bool) -> None:
    """Warn of pathwise sites from which no gradient reaches any cost but their own density.

    Raises:
        Unsupported: under ``strict``.
    """
    pathwise = [
        site
        for site in sites
        if site.estimator is not None and site.estimator.facts.reparameterized and site.value.requires_grad
    ]
    graphs = [(s, c) for s, c in zip(sites, costs, strict=True) if c is not None and c.requires_grad]
    for site in _unreached(pathwise, [c for s, c in graphs if not (s.in_guide and s.is_random)]):
        if not _unreached([site], [c for s, c in graphs if s.name != site.name]):
            continue
        message = (
            f"Pathwise site '{site.name}': no gradient path leads from it to any cost, so its gradient is "
            f"missing. Choose the score function: sites={{'{site.name}': ScoreFunction()}}."
        )
        if strict:
            raise Unsupported(message)
        warnings.warn(message, NoGradientPath, stacklevel=2)


def _unreached(sites: Sequence[Site], costs: Sequence[Tensor]) -> list[Site]:
    if not sites or not costs:
        return list(sites)
    total = torch.stack([cost.sum() for cost in costs]).sum()
    gradients = torch.autograd.grad(total, [site.value for site in sites], allow_unused=True, retain_graph=True)
    return [site for site, gradient in zip(sites, gradients, strict=True) if gradient is None]
