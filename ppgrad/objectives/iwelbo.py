"""The importance-weighted bound."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ppgrad.engine.program.program import Program
from ppgrad.engine.running.site import Site
from ppgrad.objectives._shared.requirements import needs_guide
from ppgrad.objectives.log_mean_exp import LogMeanExp


class IWELBO(LogMeanExp):
    """L_K = E[log (1/K) Σ_k w_k], w_k = p(x, z_k) / q(z_k), z_k ~ q; K = 1 is the ELBO.

    Right for discrete, continuous and mixed guides, where Pyro's ``RenyiELBO`` gives discrete guide
    sites a gradient of zero.

    Args:
        estimator: serves every site that nothing else chooses for; ``ScoreFunction(VIMCO())`` is made
            for this bound.
        num_importance: K.
        options: see `Objective`; ``num_particles`` bounds are averaged, K samples each.

    Source: Burda, Grosse & Salakhutdinov (2016), Importance weighted autoencoders, eq. 8;
    Mnih & Rezende (2016), Variational inference for Monte Carlo objectives, eq. 6.
    """

    weighs_guide = True

    @property
    def sharpness(self) -> float:
        return 1.0

    def check(self, program: Program) -> None:
        needs_guide(self, program)

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        return importance_costs(sites)


def importance_costs(sites: Sequence[Site]) -> list[Tensor | None]:
    """log q − log p of each site; every gradient counts, since the weights do not average it out."""
    return [site.log_prob if site.in_guide and site.kind != "reward" else -site.log_prob for site in sites]
