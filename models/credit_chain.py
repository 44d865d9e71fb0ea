"""Credit: what it buys to know which rewards an action can have caused.

A plate of N episodes, each a Gaussian linear chain of T steps with a reward at every step:

    u_t ~ N(θ_t, σ),   x_{t+1} = a x_t + u_t,   r_t = −(x_{t+1} − g)²,   t = 0 … T−1.

Only the start x_0 differs between episodes. Put A_{ts} = a^{t−s} for s ≤ t, else 0. Then
x_{t+1} = a^{t+1} x_0 + Σ_s A_{ts} u_s is normal with mean m_t = a^{t+1} x_0 + (Aθ)_t and variance
σ² (AAᵀ)_tt, whence

    J = −Σ_n Σ_t [(m_nt − g)² + σ² (AAᵀ)_tt],
    ∂J/∂θ = −2 Σ_n Aᵀ(m_n − g),        ∂J/∂σ = −2Nσ ‖A‖²_F.

The score function multiplies ∂log p(u_ns) = (u_ns − θ_s)/σ² by a sum of rewards. Any reward that
u_ns cannot have caused has mean zero there, and is noise. Which ones are left out follows from
where the rewards are paid, and ``pay`` moves them without changing J:

    pay="step"      r_nt inside the plate at step t: only rewards from s on, of the own episode;
    pay="episode"   Σ_t r_nt inside the plate after the last step: all rewards of the own episode;
    pay="end"       Σ_n Σ_t r_nt after the plate: all rewards there are.

To leading order, where a reward's level R outweighs its fluctuations, the variance of ∂θ_s is

    step   N (T − s)² R²/σ²,        episode   N T² R²/σ²,        end   N (NT)² R²/σ².

Plates buy a factor of up to N², program order one of T²/(T − s)²: the variance summed over s falls
to about a third. Where rewards fluctuate as much as they are large, both buy less. With the defaults
(T = 6, N = 4) the variance, summed over s, is 1.7e5 at the end, 2.1e4 by plates, and 1.2e4 by plates
and program order. Pathwise needs no credit, since the graph has it: 549, whenever rewards are paid.

Source: Schulman et al. (2015), Gradient estimation using stochastic computation graphs, theorem 1;
Sutton & Barto (2018), Reinforcement Learning, section 13.3.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad

PAYDAYS = ("step", "episode", "end")
SIGMA = 0.5
GOAL = 1.0


def program(horizon: int, episodes: int, a: float, pay: str) -> None:
    theta = pyro.param("theta", initial_theta(horizon))
    sigma = pyro.param("sigma", torch.tensor(SIGMA))
    x, total = starts(episodes), torch.zeros(episodes)
    with pyro.plate("episodes", episodes):
        for t in pyro.markov(range(horizon)):
            u = ppgrad.policy(f"u_{t}", dist.Normal(theta[t], sigma), context=x.unsqueeze(-1))
            x = a * x + u
            earned = -((x - GOAL) ** 2)
            total = total + earned
            if pay == "step":
                ppgrad.reward(f"r_{t}", earned)
        if pay == "episode":
            ppgrad.reward("r", total)
    if pay == "end":
        ppgrad.reward("r", total.sum(-1))


def initial_theta(horizon: int) -> Tensor:
    return torch.linspace(0.3, -0.3, horizon)


def starts(episodes: int) -> Tensor:
    return torch.linspace(-1.0, 1.0, episodes)


def exact_gradient(horizon: int, episodes: int, a: float) -> dict[str, Tensor]:
    lag = torch.arange(horizon).unsqueeze(-1) - torch.arange(horizon)
    response = torch.where(lag >= 0, a ** lag.clamp(min=0), 0.0)
    from_start = starts(episodes).unsqueeze(-1) * a ** torch.arange(1, horizon + 1)
    mean = from_start + response @ initial_theta(horizon)
    return {
        "theta": -2 * ((mean - GOAL) @ response).sum(0),
        "sigma": -2 * episodes * SIGMA * response.square().sum(),
    }


def problem(horizon: int = 6, episodes: int = 4, a: float = 0.9, pay: str = "step") -> ppgrad.Problem:
    """A linear chain in a plate of episodes.

    Args:
        horizon: steps T.
        episodes: N.
        a: how much of the state is left after a step.
        pay: when rewards are paid: at each ``"step"``, once an ``"episode"``, or all at the ``"end"``.
    """
    if pay not in PAYDAYS:
        raise ppgrad.InvalidInput(f"pay={pay!r}: write one of {', '.join(PAYDAYS)}.")
    return ppgrad.Problem(
        model=program,
        objective=ppgrad.ExpectedReturn,
        about=f"a linear chain of {horizon} steps in {episodes} episodes, pay: {pay}",
        args=(horizon, episodes, a, pay),
        exact=lambda: exact_gradient(horizon, episodes, a),
    )
