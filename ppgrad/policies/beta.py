"""A Beta policy over bounded actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppgrad.core import InvalidInput
from ppgrad.policies.arguments import Bounds, limits, module_class, positive, whole, widths
from ppgrad.policies.covariance import inverse_softplus
from ppgrad.policies.network import perceptron
from ppgrad.policies.policy import Policy
from ppgrad.policies.scaled_beta import ScaledBeta


class BetaPolicy(Policy):
    """a_i = low_i + (high_i − low_i) x_i, x_i ~ Beta(α_i, β_i), (α, β) = 1 + softplus(f(φ)).

    Concentrations above 1 make one hump that is zero at both bounds, so that no action sits on a
    bound. Its entropy is exact; pathwise and score function both serve it.

    Args:
        features: how many features.
        actions: how many actions.
        bounds: (low, high), each a number or one for each action.
        concentration: what α and β are at first: 2 is a parabola, more is narrower.
        hidden: the width of each hidden layer; ``()`` for a linear map.
        activation: the class of the activation.
        squash: refused: the actions are bounded as they are.

    Raises:
        InvalidInput: an argument is out of its range.

    Source: Chou, Maturana & Scherer (2017), Improving stochastic policy gradients with the Beta
    distribution, section 4.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        features: int,
        actions: int,
        *,
        bounds: Bounds = (0.0, 1.0),
        concentration: float = 2.0,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
        squash: Any = False,
    ):
        super().__init__()
        where = type(self).__name__
        if squash:
            raise InvalidInput(f"{where}(squash={squash!r}): a Beta action is bounded. Write bounds=(low, high).")
        self.features = whole(where, "features", features)
        self.actions = whole(where, "actions", actions)
        low, high = limits(where, bounds, self.actions)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        if positive(where, "concentration", concentration) <= 1:
            raise InvalidInput(f"{where}(concentration={concentration!r}): write a number above 1, such as 2.0.")
        bias = inverse_softplus(torch.tensor(concentration - 1.0)).expand(2 * self.actions)
        self.network = perceptron(
            self.features, widths(where, hidden), bias, 2 * self.actions, module_class(where, activation)
        )

    def outputs(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.network(features),)

    def distribution(self, *outputs: Tensor, validate_args: bool | None = None) -> dist.TorchDistribution:
        first, second = (1 + softplus(outputs[0])).chunk(2, -1)
        return ScaledBeta(first, second, self.low, self.high, validate_args=validate_args)
