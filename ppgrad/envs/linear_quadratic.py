"""Linear-quadratic control: everything about it is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppgrad.core import InvalidInput
from ppgrad.envs.arguments import matrix, not_negative
from ppgrad.envs.environment import Environment
from ppgrad.envs.spaces import Box

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class LinearQuadratic(Environment):
    """x′ = Ax + Bu + w, r = −(xᵀQx + uᵀRu), at the horizon −xᵀQ_T x; x₀ ~ N(0, I), w ~ N(0, s²I).

    The policy of the closed forms is u = −Kx + σε, ε ~ N(0, I).

    Args:
        dynamics: A, ``(n, n)``, as nested tuples.
        control: B, ``(n, m)``.
        state_cost: Q.
        action_cost: R.
        final_cost: Q_T.
        noise: s; zero for a deterministic transition.
        device: where the states are; None for torch's default.

    Raises:
        InvalidInput: the matrices do not fit together, or ``noise`` is negative or not finite.

    Source: Bertsekas (2017), Dynamic Programming and Optimal Control, section 3.1.
    """

    dynamics: Matrix = ((1.0, 0.1), (0.0, 1.0))
    control: Matrix = ((0.0,), (0.1,))
    state_cost: Matrix = ((1.0, 0.0), (0.0, 1.0))
    action_cost: Matrix = ((0.1,),)
    final_cost: Matrix = ((1.0, 0.0), (0.0, 1.0))
    noise: float = 0.0
    device: torch.device | str | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        where = type(self).__name__
        n, m = matrix(where, "control", self.control)
        shapes = {"dynamics": (n, n), "state_cost": (n, n), "action_cost": (m, m), "final_cost": (n, n)}
        for name, shape in shapes.items():
            rows = getattr(self, name)
            if matrix(where, name, rows) != shape:
                raise InvalidInput(f"LinearQuadratic({name}={rows}): control has shape {(n, m)}; write shape {shape}.")
        not_negative(where, "noise", self.noise)

    @property
    def action_space(self) -> Box:
        return Box((len(self.control[0]),))

    def initial(self, episodes: int) -> Tensor:
        return pyro.sample(
            "s_0", dist.Normal(torch.zeros(episodes, len(self.dynamics), device=self.device), 1.0).to_event(1)
        )

    def transition(self, state: Tensor, action: Tensor) -> Tensor | dist.TorchDistribution:
        a, b = state.new_tensor(self.dynamics), state.new_tensor(self.control)
        mean = state @ a.mT + action @ b.mT
        return mean if self.noise == 0.0 else dist.Normal(mean, self.noise).to_event(1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -_square(state, self.state_cost) - _square(action, self.action_cost)

    def final_reward(self, state: Tensor) -> Tensor:
        return -_square(state, self.final_cost)

    def expected_return(self, gain: Tensor, std: float, horizon: int) -> Tensor:
        """J(K) = −Σ_t tr((Q + KᵀRK)S_t) − Tσ² tr R − tr(Q_T S_T), with S_t = E[x_t x_tᵀ].

        Args:
            gain: K, ``(m, n)``; J has a graph to it.
            std: σ.
            horizon: T.

        Returns:
            The expected return of one episode, a scalar: minus the cost.
        """
        a, b, q, r, final = self._matrices(gain)
        closed = a - b @ gain
        noise = std**2 * b @ b.mT + self.noise**2 * torch.eye(len(a), dtype=gain.dtype, device=gain.device)
        moment = torch.eye(len(a), dtype=gain.dtype, device=gain.device)
        cost = horizon * std**2 * r.trace()
        for _ in range(horizon):
            cost = cost + ((q + gain.mT @ r @ gain) @ moment).trace()
            moment = closed @ moment @ closed.mT + noise
        return -cost - (final @ moment).trace()

    def gradient(self, gain: Tensor, std: float, horizon: int) -> Tensor:
        """∇J(K), the direction of ascent, of the shape of ``gain``."""
        gain = gain.detach().requires_grad_()
        return torch.autograd.grad(self.expected_return(gain, std, horizon), gain)[0]

    def value(self, state: Tensor, gain: Tensor, std: float, steps: int) -> Tensor:
        """V(x) = −xᵀPx − c, the expected return to come with ``steps`` steps left.

        P ← Q + KᵀRK + (A − BK)ᵀP(A − BK),  c ← c + σ² tr(R + BᵀPB) + s² tr P,  from P = Q_T, c = 0.

        Args:
            state: ``(*batch, n)``.
            gain: K, ``(m, n)``.
            std: σ.
            steps: how many actions are still to come.

        Returns:
            Shape ``batch``.
        """
        a, b, q, r, p = self._matrices(gain)
        closed = a - b @ gain
        rest = gain.new_zeros(())
        for _ in range(steps):
            rest = rest + std**2 * (r + b.mT @ p @ b).trace() + self.noise**2 * p.trace()
            p = q + gain.mT @ r @ gain + closed.mT @ p @ closed
        return -((state @ p) * state).sum(-1) - rest

    def _matrices(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        a, b, q, r, final = (
            like.new_tensor(matrix)
            for matrix in (self.dynamics, self.control, self.state_cost, self.action_cost, self.final_cost)
        )
        return a, b, q, r, final


def _square(x: Tensor, matrix: Matrix) -> Tensor:
    return ((x @ x.new_tensor(matrix)) * x).sum(-1)
