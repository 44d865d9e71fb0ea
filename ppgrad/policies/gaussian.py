"""A Gaussian policy, with every kind of covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppgrad.core import InvalidInput
from ppgrad.policies.arguments import Bounds, flag, module_class, one_of, whole, widths
from ppgrad.policies.covariance import Covariance, DiagonalNormal, FullNormal
from ppgrad.policies.covariance_choice import chosen_covariance, refuse_learning, starting_scale
from ppgrad.policies.network import perceptron
from ppgrad.policies.squashing import SquashingPolicy


class GaussianPolicy(SquashingPolicy):
    """π(a|φ) = N(a; μ(φ), Σ(φ)), or tanh of such an action; Σ = L Lᵀ is never formed or inverted.

    | covariance | state_dependent | Σ |
    | --- | --- | --- |
    | ``"constant"`` | either | ``scale``, fixed: a buffer that no optimizer moves |
    | ``"diagonal"``, ``"low_rank"``, ``"full"`` | False | learned, the same for every state |
    | ``"diagonal"``, ``"low_rank"``, ``"full"`` | True (default) | learned, an output of a network |

    A full L has a softplus diagonal above a floor and free numbers below it; low rank is
    Σ = W Wᵀ + diag(σ²). At first Σ is that of ``scale`` for every state, and the mean nearly zero.

    The entropy is exact; squashed, it is a quadrature (see `Squashed`). Pathwise and score
    function both serve it.

    Args:
        features: how many features.
        actions: how many actions.
        covariance: the kind, see above.
        state_dependent: whether a learned covariance depends on the features; a constant one never does.
        squash: tanh the raw action into ``bounds``.
        bounds: (low, high) of a squashed action, each a number or one for each action; None for (−1, 1).
        scale: the standard deviation, fixed for ``"constant"`` and where learning starts otherwise: a
            number, one for each action, or, for ``"constant"`` and ``"full"``, a Cholesky factor
            ``(actions, actions)``. Of the raw action, if squashed.
        floor: no learned standard deviation (given the other actions) falls below it; None for 1e-3.
        rank: the rank of W for ``"low_rank"``; None for 1.
        shared: mean and covariance are outputs of one network; False gives each its own.
        hidden: the width of each hidden layer; ``()`` for a mean that is linear in the features.
        activation: the class of the activation.

    Raises:
        InvalidInput: an argument is out of its range, or two contradict each other.

    Source: Williams (1992), section 6, for the diagonal; Haarnoja et al. (2018), appendix C, squashed.

    >>> policy = GaussianPolicy(3, 2, covariance="full", scale=0.5)
    >>> action = policy(torch.zeros(10, 3)).sample()
    >>> tuple(action.shape)
    (10, 2)
    """

    scale_tril: Tensor

    def __init__(
        self,
        features: int,
        actions: int,
        *,
        covariance: Literal["constant", "diagonal", "low_rank", "full"] = "diagonal",
        state_dependent: bool = True,
        squash: bool = False,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        floor: float | None = None,
        rank: int | None = None,
        shared: bool = True,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
    ):
        super().__init__()
        where = type(self).__name__
        self.features = whole(where, "features", features)
        self.actions = whole(where, "actions", actions)
        hidden, activation = widths(where, hidden), module_class(where, activation)
        one_of(where, "covariance", covariance, ("constant", "diagonal", "low_rank", "full"))
        flag(where, "shared", shared)
        flag(where, "state_dependent", state_dependent)
        constant = covariance == "constant"
        if constant:
            refuse_learning(where, floor, rank)
        self.state_dependent = state_dependent and not constant
        if not shared and not self.state_dependent:
            raise InvalidInput(
                f"{where}(shared=False): only a state-dependent covariance has a network of its own. "
                "Leave shared out, or write state_dependent=True with a covariance that is learned."
            )
        self._set_bounds(squash, bounds)
        scale_tril = starting_scale(where, scale, self.actions, covariance)
        self.covariance: Covariance | None = None
        vector = torch.zeros(0)
        if constant:
            self.register_buffer("scale_tril", scale_tril)
            self._is_diagonal = bool((scale_tril == scale_tril.diagonal().diag()).all())
        else:
            self.covariance = chosen_covariance(where, covariance, self.actions, floor, rank, scale_tril)
            vector = self.covariance.initial(scale_tril)
        centre = torch.zeros(self.actions)
        self.shared = shared and self.state_dependent
        if self.shared:
            self.network = perceptron(self.features, hidden, torch.cat([centre, vector]), self.actions, activation)
            return
        self.mean = perceptron(self.features, hidden, centre, self.actions, activation)
        if self.state_dependent:
            self.spread_network = perceptron(self.features, hidden, vector, 0, activation)
        elif not constant:
            self.spread = nn.Parameter(vector)

    @property
    def has_exact_entropy(self) -> bool:  # type: ignore[override]
        """Whether ``entropy()`` is in closed form: unless squashed."""
        return not self.squash

    def outputs(self, features: Tensor) -> tuple[Tensor, ...]:
        if self.shared:
            both = self.network(features)
            return both[..., : self.actions], both[..., self.actions :]
        if self.covariance is None:
            return (self.mean(features),)
        return self.mean(features), self.spread_network(features) if self.state_dependent else self.spread

    def distribution(self, *outputs: Tensor, validate_args: bool | None = None) -> dist.TorchDistribution:
        return self._squashed(self._raw_distribution(*outputs, validate_args=validate_args), validate_args)

    def _raw_distribution(
        self, loc: Tensor, vector: Tensor | None = None, *, validate_args: bool | None
    ) -> dist.TorchDistribution:
        if self.covariance is not None and vector is not None:
            return self.covariance.distribution(loc, vector, validate_args)
        if self._is_diagonal:
            return DiagonalNormal(loc, self.scale_tril.diagonal(), validate_args=validate_args).to_event(1)
        return FullNormal(loc, scale_tril=self.scale_tril, validate_args=validate_args)
