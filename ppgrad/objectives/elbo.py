"""The evidence lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ppgrad.core import Estimator
from ppgrad.core.arguments import flag
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.site import Site
from ppgrad.objectives._shared.closed_form import divergences
from ppgrad.objectives._shared.requirements import needs_guide
from ppgrad.objectives.objective import Objective


class ELBO(Objective):
    """ELBO = E_q[log p(x, z) − log q(z)], with reward sites as log factors of p.

    The same bound as ``pyro.infer.Trace_ELBO``. Where the value of a guide site carries no
    gradient, the gradient of its own log q has mean zero and is left out, as in Pyro.

    With ``analytic_kl`` the log q − log p of a site that the guide draws and the model replays is
    KL(q(z | …) ‖ p(z | …)), the expectation over the site's own draw, wherever PyTorch or Pyro have
    registered it: the same bound and the same gradient with less variance, whatever estimator serves
    the site. A site keeps log q − log p where they have not, where the scales or masks of
    model and guide are not known to be the same, and where the model replays, before it, a site that
    the guide draws after it: p(z | …) may then depend on what was drawn from z.
    (``pyro.infer.TraceMeanField_ELBO`` warns, and is biased.)

    Sites that the model marks ``infer={"enumerate": "parallel"}`` and the guide lacks are summed out of p(x, z), by
    variable elimination: as ``pyro.infer.TraceEnum_ELBO`` does, plates and ``pyro.markov`` included, beside any
    estimator at the sites that the guide draws. No estimator serves them.

    Args:
        estimator: serves every site that nothing else chooses for.
        analytic_kl: take divergences in closed form where there are any.
        options: see `Objective`.

    Raises:
        InvalidInput: ``analytic_kl`` is neither True nor False.

    Source: Ranganath, Gerrish & Blei (2014), Black box variational inference, eq. 2;
    Kingma & Welling (2014), Auto-encoding variational Bayes, eq. 3, with ``analytic_kl`` eq. 7.
    """

    weighs_guide = True
    sums_out = True

    def __init__(self, estimator: Estimator | None = None, *, analytic_kl: bool = False, **options: Any):
        flag("ELBO", "analytic_kl", analytic_kl)
        self.analytic_kl = analytic_kl
        super().__init__(estimator, **options)

    def check(self, program: Program) -> None:
        needs_guide(self, program)

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        closed = divergences(sites) if self.analytic_kl else {}
        return [
            _closed(site, closed[site.name]) if site.name in closed else _cost(site, self.all_orders) for site in sites
        ]


def _closed(site: Site, divergence: Tensor) -> Tensor | None:
    return None if site.in_guide else site.weighted(divergence)


def _cost(site: Site, all_orders: bool) -> Tensor | None:
    if not site.in_guide:
        return -site.weighted_log_prob
    if site.kind == "reward":
        return -site.weighted_log_prob
    return site.weighted_log_prob if site.carries_gradient or all_orders else site.weighted_log_prob.detach()
