"""A mixture of Normal distributions, with an entropy."""

from __future__ import annotations

from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor


class GaussianMixture(dist.MixtureSameFamily):
    """p(x) = Σ_k w_k N(x; μ_k, Σ_k): a Categorical over components, and components of one event dimension.

    ``entropy()`` is the estimate −Σ_k w_k log p(x_k) with one reparameterized draw x_k from every
    component: unbiased, and so is its gradient, that of the weights included.

    No reparameterized sample: choose the score function.

    Args:
        mixture_distribution: the Categorical, of batch shape ``B``.
        component_distribution: the components, of batch shape ``(*B, K)`` and event shape ``(d,)``.
        validate_args: as for every distribution of Pyro.
    """

    estimates_entropy: ClassVar[bool] = True

    def entropy(self) -> Tensor:
        draws = self.component_distribution.rsample().movedim(-2, 0)
        log_probs = self.log_prob(draws).movedim(0, -1)
        return -(self.mixture_distribution.probs * log_probs).sum(-1)

    @property
    def mode(self) -> Tensor:
        """The mean of the likeliest component."""
        likeliest = self.mixture_distribution.logits.argmax(-1)[..., None, None]
        means = self.component_distribution.mean
        chosen: Tensor = means.gather(-2, likeliest.expand(*likeliest.shape[:-1], means.shape[-1])).squeeze(-2)
        return chosen
