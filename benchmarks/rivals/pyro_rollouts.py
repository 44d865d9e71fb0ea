"""A rollout for Pyro's own ELBOs: their gradient is that of the expected return.

The model's actions have the density that the guide's have, so that the two cancel and only the rewards, which are
factors, are left. Pyro runs both, and the policy twice.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from torch import Tensor, nn

from benchmarks.rollouts import Kind

ELBOS = {
    "Pyro Trace_ELBO": lambda: Trace_ELBO(),
    "Pyro TraceGraph_ELBO": lambda: TraceGraph_ELBO(),
    "Pyro TraceEnum_ELBO": lambda: TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
}


class NormalWithoutGraph(dist.Normal):
    """A normal distribution that Pyro's ELBOs serve by the score function; plates keep it what it is."""

    has_rsample = False


WITHOUT_GRAPH = SimpleNamespace(Normal=NormalWithoutGraph, Independent=dist.Independent, Categorical=dist.Categorical)


class PyroRollout:
    """Model and guide.

    Args:
        kind: of the rollout.
        score_function: whether normal actions are to be drawn without a graph, too.
    """

    def __init__(self, kind: Kind, score_function: bool):
        self.kind = kind
        self.library = WITHOUT_GRAPH if score_function else dist

    def model(self, policy: nn.Module, state: Tensor, steps: int) -> None:
        scale = policy.scale()
        with pyro.plate("episodes", len(state)):
            for t in range(steps):
                action = pyro.sample(f"a_{t}", self._density(policy(state), scale))
                state = self.kind.move(state, action)
                pyro.factor(f"r_{t}", self.kind.reward(state))

    def guide(self, policy: nn.Module, state: Tensor, steps: int) -> None:
        pyro.module("policy", policy)  # without it Pyro takes no gradient
        scale = policy.scale()
        with pyro.plate("episodes", len(state)):
            for t in range(steps):
                action = pyro.sample(f"a_{t}", self._density(policy(state), scale))
                state = self.kind.move(state, action)

    def _density(self, output: Tensor, scale: Tensor | None) -> Any:
        return self.kind.density(self.library, output, scale)
