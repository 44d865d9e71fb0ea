"""The multilayer perceptron that policies share, and its initialization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def perceptron(
    features: int,
    hidden: Sequence[int],
    bias: Tensor,
    linear: int,
    activation: type[nn.Module],
) -> nn.Sequential:
    """A multilayer perceptron whose first output is nearly ``bias`` for every input.

    Hidden weights are orthogonal with gain √2; those of the first ``linear`` outputs orthogonal
    with gain 0.01; those of the other outputs zero, so that these begin at ``bias`` exactly.

    Args:
        features: how many inputs.
        hidden: the width of each hidden layer; empty for a linear map.
        bias: the bias of the last layer, one for each output.
        linear: how many outputs depend on the input from the start.
        activation: stands behind each hidden layer.

    Source: Andrychowicz et al. (2021), What matters for on-policy deep actor-critic methods, section 3.2.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in zip([features, *hidden], hidden, strict=False):
        layer = nn.Linear(width_in, width_out)
        nn.init.orthogonal_(layer.weight, math.sqrt(2))
        nn.init.zeros_(layer.bias)
        layers += [layer, activation()]
    last = nn.Linear(hidden[-1] if hidden else features, len(bias))
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        if linear:
            nn.init.orthogonal_(last.weight[:linear], 0.01)
        last.bias.copy_(bias)
    return nn.Sequential(*layers, last)
