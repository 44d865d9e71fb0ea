"""Policies that tests play with."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppgrad.testing import SUITE_FAILURE_RATE

FAILURE_RATE = SUITE_FAILURE_RATE / 500


HORIZON, STD = 20, 0.1


class Linear(nn.Module):
    """N(−Kx, σ²)."""

    def __init__(self, gain: tuple[float, ...] = (0.0, 0.0)):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([gain]))

    def forward(self, state: Tensor) -> dist.Distribution:
        return dist.Normal(-state @ self.gain.mT, STD).to_event(1)


class Logits(nn.Module):
    def __init__(self, inputs: int = 4, choices: int = 2):
        super().__init__()
        self.layer = nn.Linear(inputs, choices)

    def forward(self, observation: Tensor) -> dist.Distribution:
        return dist.Categorical(logits=self.layer(observation))
