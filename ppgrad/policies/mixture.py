"""A policy that mixes several Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppgrad.policies.arguments import Bounds, module_class, one_of, whole, widths
from ppgrad.policies.covariance_choice import chosen_covariance, starting_scale
from ppgrad.policies.gaussian_mixture import GaussianMixture
from ppgrad.policies.network import perceptron
from ppgrad.policies.squashing import SquashingPolicy


class MixturePolicy(SquashingPolicy):
    """π(a|φ) = Σ_k w_k(φ) N(a; μ_k(φ), Σ_k(φ)), or tanh of such an action; one network gives all.

    At first the components have equal weights, the covariance of ``scale``, and means that are
    drawn from N(0, scale²), so that they can part.

    Its entropy is an unbiased estimate (see `GaussianMixture`). No reparameterized sample: the
    score function serves it.

    Args:
        features: how many features.
        actions: how many actions.
        components: how many Gaussians.
        covariance: of each component: ``"diagonal"``, ``"low_rank"`` or ``"full"``.
        squash, bounds, scale, floor, rank, hidden, activation: as in `GaussianPolicy`.

    Raises:
        InvalidInput: an argument is out of its range, or two contradict each other.

    Source: Bishop (1994), Mixture density networks, section 3.
    """

    has_exact_entropy: ClassVar[bool] = False

    def __init__(
        self,
        features: int,
        actions: int,
        *,
        components: int = 3,
        covariance: Literal["diagonal", "low_rank", "full"] = "diagonal",
        squash: bool = False,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        floor: float | None = None,
        rank: int | None = None,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
    ):
        super().__init__()
        where = type(self).__name__
        self.features = whole(where, "features", features)
        self.actions = whole(where, "actions", actions)
        self.components = whole(where, "components", components, least=2)
        one_of(where, "covariance", covariance, ("diagonal", "low_rank", "full"))
        self._set_bounds(squash, bounds)
        scale_tril = starting_scale(where, scale, self.actions, covariance)
        self.covariance = chosen_covariance(where, covariance, self.actions, floor, rank, scale_tril)
        vectors = torch.stack([self.covariance.initial(scale_tril) for _ in range(components)])
        means = torch.randn(components, self.actions) @ scale_tril.T
        centre = torch.cat([torch.zeros(components), means.reshape(-1)])
        self.network = perceptron(
            self.features,
            widths(where, hidden),
            torch.cat([centre, vectors.reshape(-1)]),
            len(centre),
            module_class(where, activation),
        )

    def outputs(self, features: Tensor) -> tuple[Tensor, ...]:
        k, a = self.components, self.actions
        logits, rest = self.network(features).tensor_split([k], -1)
        means, vectors = rest.tensor_split([k * a], -1)
        return logits, means.unflatten(-1, (k, a)), vectors.unflatten(-1, (k, -1))

    def distribution(self, *outputs: Tensor, validate_args: bool | None = None) -> dist.TorchDistribution:
        logits, means, vectors = outputs
        fn = GaussianMixture(
            dist.Categorical(logits=logits, validate_args=validate_args),
            self.covariance.distribution(means, vectors, validate_args),
            validate_args=validate_args,
        )
        return self._squashed(fn, validate_args)
