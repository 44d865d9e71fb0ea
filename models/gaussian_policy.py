"""A Gaussian policy, mean and covariance from one network, by score function and by pathwise.

In each of a few episodes, with a state s of its own, an action of two dimensions is drawn and a
reward earned:

    h = tanh(W₁s + b₁),   (m, ℓ) = W₂h + b₂,   a ~ N(m, LLᵀ),   L = tril(ℓ), L_ii = softplus(ℓ_ii) + floor,
    r(s, a) = exp(−½|a − t(s)|²) + 0.2 sin(wᵀa),        J = Σ_s E[r(s, a)],

with a target t(s), the state turned by a quarter. The reward is a bounded bump with ripples on it:
smooth, so that both of

    score function   ∇J = Σ_s E[r(s, a) ∇log N(a; m, LLᵀ)]        (a held fixed),
    pathwise         ∇J = Σ_s E[∇r(s, m + Lε)],  ε ~ N(0, I)       (ε held fixed)

are unbiased. They are integration by parts of one another (Stein: E[r (a − m)] = Σ E[∇r];
Price: ∂_Σ E[r] = ½ E[∇²r]), so their means agree and only their noise differs.

*Is a Gaussian policy's variance always constant?* No: that is a choice. ``covariance="constant"``
has one diagonal L for all states, a parameter of its own, and only the mean sees the state. Then the score
of the output layer is ∂_W log N = Σ⁻¹(a − m)hᵀ. With ``"diagonal"`` and ``"full"`` the network gives
L(s) too, and the score gains ∂_Σ log N = ½[Σ⁻¹(a − m)(a − m)ᵀΣ⁻¹ − Σ⁻¹], passed on to W₁ and W₂ by
the chain rule. Nothing in either estimator has to be rewritten for that: the one needs log N, the
other needs m + Lε. What does change is the size of the noise. The score is of order 1/σ, so the
variance of the score function grows without bound as the policy learns to be certain; the floor
under L_ii keeps it finite. Pathwise goes the other way, and quietens down.

*What about the inverse and the determinant of a full covariance?* Neither is ever formed. With
Σ = LLᵀ and one triangular solve Ly = a − m,

    log N(a; m, LLᵀ) = −½|y|² − Σ_i log L_ii − (d/2) log 2π,

since (a − m)ᵀΣ⁻¹(a − m) = |y|² and ½ log det Σ = Σ_i log L_ii. That costs d² and not d³ operations,
is differentiated by another triangular solve, and stays accurate where Σ⁻¹ would lose half of the
digits. A network may give any numbers for ℓ: the strict lower triangle is free, a softplus makes
the diagonal positive, and Σ is then positive definite without a constraint. Pathwise does not even
solve: a = m + Lε. It is ``MultivariateNormal(m, scale_tril=L)`` that does all of this.

The exact gradient is in closed form. A Gaussian bump is itself a density, and the sine has the
normal's characteristic function:

    E exp(−½|a − t|²) = 2π N(t; m, I + Σ),        E sin(wᵀa) = sin(wᵀm) exp(−½ wᵀΣw).

Source: Williams (1992), eq. 4; Kingma & Welling (2014), section 2.4; Price (1958).
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppgrad

ACTION = 2
WAVE = (3.0, -2.0)
HEIGHT = 0.2
COVARIANCES = ("constant", "diagonal", "full")


class GaussianPolicy(nn.Module):
    """States, shape ``(…, 2)``, to a ``MultivariateNormal`` over actions of the same shape.

    Args:
        covariance: ``"constant"`` (the same diagonal for all states), ``"diagonal"`` or ``"full"``.
        hidden: units of the one hidden layer.
        floor: least standard deviation L_ii.
        seed: of the initial weights; the global generators are left alone.
    """

    def __init__(self, covariance: str = "full", hidden: int = 3, floor: float = 0.1, seed: int = 0):
        super().__init__()
        if covariance not in COVARIANCES:
            raise ppgrad.InvalidInput(f"covariance={covariance!r}: write one of {', '.join(COVARIANCES)}.")
        self.covariance, self.floor = covariance, floor
        lower = {"constant": 0, "diagonal": ACTION, "full": ACTION * (ACTION + 1) // 2}[covariance]
        generator = torch.Generator().manual_seed(seed)
        self.hidden = _linear(2, hidden, 1.0, generator)
        self.head = _linear(hidden, ACTION + lower, 0.5, generator)
        if covariance == "constant":
            self.raw_scale = nn.Parameter(torch.zeros(ACTION))

    def forward(self, state: Tensor) -> dist.MultivariateNormal:
        output = self.head(torch.tanh(self.hidden(state)))
        mean, lower = output[..., :ACTION], output[..., ACTION:]
        raw = self.raw_scale.expand(mean.shape) if self.covariance == "constant" else lower[..., :ACTION]
        scale_tril = torch.diag_embed(nn.functional.softplus(raw) + self.floor)
        if self.covariance == "full":
            scale_tril = scale_tril + torch.diag_embed(lower[..., ACTION:], offset=-1)
        return dist.MultivariateNormal(mean, scale_tril=scale_tril)


def _linear(inputs: int, outputs: int, std: float, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.normal_(layer.weight, std=std, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def episode_states(episodes: int) -> Tensor:
    """Fixed states on the unit circle, shape ``(episodes, 2)``."""
    angle = torch.arange(episodes) * (2 * math.pi / episodes)
    return torch.stack([angle.cos(), angle.sin()], -1)


def target(state: Tensor) -> Tensor:
    """The best action but for the ripples: the state turned by a quarter."""
    return torch.stack([-state[..., 1], state[..., 0]], -1)


def program(policy: nn.Module, state: Tensor) -> None:
    with pyro.plate("episodes", len(state)):
        action = ppgrad.policy("action", policy(state), context=state)
        bump = torch.exp(-0.5 * (action - target(state)).square().sum(-1))
        ripple = torch.sin((action * action.new_tensor(WAVE)).sum(-1))
        ppgrad.reward("reward", bump + HEIGHT * ripple)


def expected_return(policy: nn.Module, state: Tensor) -> Tensor:
    """J in closed form, a scalar with a graph to the policy's parameters."""
    fn = policy(state)
    wave = state.new_tensor(WAVE)
    covariance = fn.scale_tril @ fn.scale_tril.mT
    widened = dist.MultivariateNormal(fn.loc, covariance + torch.eye(ACTION))
    bump = (2 * math.pi) ** (ACTION / 2) * widened.log_prob(target(state)).exp()
    ripple = torch.sin(fn.loc @ wave) * torch.exp(-0.5 * (covariance @ wave) @ wave)
    return (bump + HEIGHT * ripple).sum()


def exact_gradient(policy: nn.Module, state: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*policy.named_parameters(prefix="policy"), strict=True)
    return dict(zip(names, torch.autograd.grad(expected_return(policy, state), parameters), strict=True))


def problem(
    covariance: str = "full", episodes: int = 6, hidden: int = 3, floor: float = 0.1, seed: int = 0
) -> ppgrad.Problem:
    """A Gaussian policy in a plate of episodes.

    Args:
        covariance: ``"constant"``, ``"diagonal"`` or ``"full"``.
        episodes: how many states, evenly on the unit circle.
        hidden: units of the network's hidden layer.
        floor: least standard deviation.
        seed: of the network's initial weights.
    """
    policy, state = GaussianPolicy(covariance, hidden, floor, seed), episode_states(episodes)
    return ppgrad.Problem(
        model=program,
        objective=ppgrad.ExpectedReturn,
        about=f"a Gaussian policy, {covariance} covariance, one network",
        args=(policy, state),
        exact=lambda: exact_gradient(policy, state),
        training={"steps": 1000, "learning_rate": 0.02, "schedule": "cosine", "evaluate_every": 100},
    )
