"""What tests of compiled gradients share."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

import ppgrad

TRACED = "eager"
"""A backend that runs the traced graph as it is: all but the C++ compiler's part, in a second."""


def program(x: float = 1.0) -> None:
    loc = pyro.param("loc", torch.tensor(0.5))
    z = ppgrad.policy("z", dist.Normal(loc, 1.0))
    ppgrad.cost("f", x * (z - 1.0) ** 2)
