"""The importance-weighted bound."""

from __future__ import annotations

from ppgrad.objectives.importance_bound import ImportanceBound


class IWELBO(ImportanceBound):
    """L_K = E[log (1/K) Σ_k w_k], w_k = p(x, z_k) / q(z_k), z_k ~ q; K = 1 is the ELBO.

    Over a plate of independent data it is the sum of their bounds; see `ImportanceBound`. Right for discrete,
    continuous and mixed guides, where Pyro's ``RenyiELBO`` gives discrete guide sites a gradient of zero.

    Args:
        estimator: serves every site that nothing else chooses for; ``ScoreFunction(VIMCO())`` is made
            for this bound.
        num_importance: K.
        per: ``"slice"``, ``"joint"`` or None; see `ImportanceBound`.
        options: see `Objective`; ``num_particles`` bounds are averaged, K samples each.

    Source: Burda, Grosse & Salakhutdinov (2016), Importance weighted autoencoders, eq. 8;
    Mnih & Rezende (2016), Variational inference for Monte Carlo objectives, eq. 6.
    """

    @property
    def sharpness(self) -> float:
        return 1.0
