"""Programs that tests of objectives run."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import ppgrad
from ppgrad.testing import all_problems

PROBLEMS = all_problems()


DATA = torch.tensor([1.2, 2.9, 1.8, 2.2, 3.1])


def model(data: torch.Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    with pyro.plate("n", len(data)):
        pyro.sample("x", dist.Normal(mu, sigma), obs=data)


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.double()
        self.float()

    def forward(self, state: torch.Tensor) -> dist.Normal:
        return dist.Normal(self.linear(state).squeeze(-1), 0.5)


def episode(policy: nn.Module) -> None:
    with pyro.plate("n", 32):
        state = torch.ones(32, 1)
        action = ppgrad.policy("a", policy(state), context=state)
        ppgrad.cost("f", (action - 3) ** 2)
