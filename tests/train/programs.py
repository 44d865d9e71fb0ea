"""Programs that tests train."""

from __future__ import annotations

import functools

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppgrad

DATA = torch.tensor([1.2, 2.9, 1.8, 2.2, 3.1])


fit = functools.partial(ppgrad.fit, progress=False)


def program() -> None:
    loc = pyro.param("loc", torch.zeros(2))
    with pyro.plate("episodes", 4):
        x = ppgrad.policy("x", dist.Normal(loc, 1.0).to_event(1))
        ppgrad.cost("f", (x - 3).square().sum(-1))


def model(data: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("n", len(data)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=data)


def guide(data: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    pyro.sample("mu", dist.Normal(loc, scale))


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, state: Tensor) -> dist.Normal:
        return dist.Normal(self.linear(state).squeeze(-1), 0.5)


def episode(policy: nn.Module) -> None:
    with pyro.plate("n", 8):
        state = torch.ones(8, 1)
        action = ppgrad.policy("a", policy(state), context=state)
        ppgrad.cost("f", (action - 3) ** 2)


def weights() -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in pyro.get_param_store().named_parameters()}
