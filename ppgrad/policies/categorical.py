"""A policy that chooses one of several actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppgrad.core import InvalidInput
from ppgrad.policies.arguments import module_class, whole, widths
from ppgrad.policies.network import perceptron
from ppgrad.policies.policy import Policy


class CategoricalPolicy(Policy):
    """π(a|φ) = softmax(f(φ))_a, with a network f; nearly uniform at first.

    Its entropy is exact. No reparameterized sample: the score function serves it, or a sum over
    all actions.

    Args:
        features: how many features.
        actions: how many actions to choose from.
        hidden: the width of each hidden layer; ``()`` for logits that are linear in the features.
        activation: the class of the activation.
        squash: refused: a discrete action has nothing to squash.

    Raises:
        InvalidInput: an argument is out of its range.

    Source: none.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
        squash: Any = False,
    ):
        super().__init__()
        where = type(self).__name__
        if squash:
            raise InvalidInput(
                f"{where}(squash={squash!r}): a discrete action has nothing to squash. Leave squash out, or write "
                "GaussianPolicy(…, squash=True) for continuous actions."
            )
        self.features = whole(where, "features", features)
        self.actions = whole(where, "actions", actions, least=2)
        self.network = perceptron(
            self.features,
            widths(where, hidden),
            torch.zeros(self.actions),
            self.actions,
            module_class(where, activation),
        )

    def outputs(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.network(features),)

    def distribution(self, *outputs: Tensor, validate_args: bool | None = None) -> dist.TorchDistribution:
        return dist.Categorical(logits=outputs[0], validate_args=validate_args)
