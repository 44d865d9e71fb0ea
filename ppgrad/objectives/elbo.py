"""The evidence lower bound."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ppgrad.core import InvalidProgram
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.site import Site
from ppgrad.objectives._shared.requirements import needs_guide
from ppgrad.objectives.objective import Objective


class ELBO(Objective):
    """ELBO = E_q[log p(x, z) − log q(z)], with reward sites as log factors of p.

    The same bound as ``pyro.infer.Trace_ELBO``. Where the value of a guide site carries no
    gradient, the gradient of its own log q has mean zero and is left out, as in Pyro.

    Args:
        estimator: serves every site that nothing else chooses for.
        options: see `Objective`.

    Source: Ranganath, Gerrish & Blei (2014), Black box variational inference, eq. 2;
    Kingma & Welling (2014), Auto-encoding variational Bayes, eq. 3.
    """

    weighs_guide = True

    def check(self, program: Program) -> None:
        needs_guide(self, program)

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        return [_cost(site, self.all_orders) for site in sites]


def _cost(site: Site, all_orders: bool) -> Tensor | None:
    if not site.in_guide:
        if site.is_random and site.infer.get("enumerate"):
            raise InvalidProgram(
                f"Site '{site.name}' of the model has infer['enumerate'] and is not in the guide. Summing it out of "
                "the likelihood is what pyro.infer.TraceEnum_ELBO does; here, draw it in the guide."
            )
        return -site.log_prob
    if site.kind == "reward":
        return -site.log_prob
    return site.log_prob if site.carries_gradient or all_orders else site.log_prob.detach()
