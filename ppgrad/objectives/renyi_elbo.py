"""The Rényi bound."""

from __future__ import annotations

from typing import Any

from ppgrad.core import Estimator, InvalidInput
from ppgrad.core.arguments import finite
from ppgrad.objectives.importance_bound import ImportanceBound


class RenyiELBO(ImportanceBound):
    """L_α = E[(1/(1 − α)) log (1/K) Σ_k w_k^{1−α}]; α = 0 is the `IWELBO`, α → 1 the ELBO.

    Args:
        estimator: serves every site that nothing else chooses for.
        alpha: order of the divergence, not 1.
        options: see `IWELBO`. In Pyro's ``RenyiELBO`` K goes by ``num_particles``; it is ``num_importance`` here.

    Raises:
        InvalidInput: ``alpha`` is 1 or no finite number; or ``num_particles`` is given without ``num_importance``.

    Source: Li & Turner (2016), Rényi divergence variational inference, eq. 9.
    """

    def __init__(self, estimator: Estimator | None = None, *, alpha: float = 0.0, **options: Any):
        finite("RenyiELBO", "alpha", alpha, 0.5)
        if alpha == 1.0:
            raise InvalidInput("RenyiELBO(alpha=1.0): the limit at 1 is the ELBO. Write ELBO(…).")
        particles = options.get("num_particles", 1)
        if particles != 1 and "num_importance" not in options:
            raise InvalidInput(
                f"RenyiELBO(num_particles={particles!r}): what Pyro calls so are the samples of one bound. For them "
                f"write num_importance={particles!r}; to average bounds, give num_particles and num_importance."
            )
        self.alpha = alpha
        super().__init__(estimator, **options)

    @property
    def sharpness(self) -> float:
        return 1.0 - self.alpha
