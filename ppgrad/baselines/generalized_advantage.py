"""Generalized advantage estimation: rewards of some steps, a critic's prediction for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ppgrad.baselines.critic import Critic, MeanOfContext
from ppgrad.core import Baseline, Draw, InvalidAssignment, InvalidInput, Learns, Memory, Needs, Signal, SiteInfo
from ppgrad.core.arguments import at_least, shown, within
from ppgrad.core.draw import Chain


@dataclass(frozen=True)
class GeneralizedAdvantage(Baseline, Learns):
    """A_t = Σ_l λ^l δ_{t+l}, δ_t = r_t + V(s_{t+1}) − V(s_t), in place of the return to come less V(s_t).

    t counts the sites that share this baseline, in program order; r_t is all that is earned between two of them,
    discounted by the objective, and V the critic, 0 after the last of them and where a site's ``infer={"active":
    …}`` is false: what ``rollout(…, bootstrap=V)`` expects after a time limit is earned. With λ = 1 it is `Critic`,
    and unbiased. Below, and with ``steps``, what the critic gets wrong is bias, and what it gets right is variance
    less. The critic is regressed on A_t + V(s_t).

    Args:
        critic: predicts the return to come from the site's context, ``Critic(module)``.
        decay: λ in [0, 1].
        steps: n, for A_t = Σ_{l<n} r_{t+l} + V(s_{t+n}) − V(s_t) instead; leave ``decay`` out.
        normalize: divide by the standard deviation of all active draws' advantages, after taking off their mean:
            another step size at each gradient, and so no unbiased estimate, whatever λ.

    Raises:
        InvalidAssignment: ``critic`` is no `Critic`.
        InvalidInput: ``decay`` or ``steps`` is out of its range, or both are given.

    Source: Schulman et al. (2016), High-dimensional continuous control using generalized advantage
    estimation, eq. 16; n steps: Mnih et al. (2016), Asynchronous methods for deep reinforcement learning.
    """

    source: ClassVar[str] = "Schulman et al. (2016), Generalized Advantage Estimation, eq. 16"
    needs: ClassVar[Needs] = Needs(chain=True)

    critic: Critic
    decay: float | None = None
    steps: int | None = None
    normalize: bool = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.critic, Critic):
            raise InvalidAssignment(f"{name}({shown(self.critic)}): write {name}(Critic(module)).")
        if self.decay is not None:
            within(name, "decay", self.decay, 0.0, 1.0)
        if self.steps is not None:
            at_least(name, "steps", self.steps, 1)
        if self.decay is not None and self.steps is not None:
            raise InvalidInput(f"{name}(decay={self.decay}, steps={self.steps}): write one of the two.")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(Critic(MeanOfContext()), decay=1.0),)

    @property
    def bias(self) -> str:
        if self.normalize:
            return "scaled by 1/std of the advantages"
        return "" if self._decay == 1.0 and self.steps is None else "as far as the critic is wrong"

    @property
    def _decay(self) -> float:
        return 0.95 if self.decay is None else self.decay

    def refuses(self, site: SiteInfo) -> str | None:
        if site.num_importance > 1:
            return "GeneralizedAdvantage needs a cost that is a sum over time, and an importance-weighted bound is none"
        return self.critic.refuses(site)

    def predict(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        return signal.value - self._along(signal)[0][signal.place]

    def own_loss(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor:
        _, targets = self._along(signal)
        return self.critic.loss_on(targets[signal.place], draw, signal)

    def modules(self) -> tuple[torch.nn.Module, ...]:
        return self.critic.modules()

    def _along(self, signal: Signal) -> tuple[list[Tensor], list[Tensor]]:
        """The advantages and the critic's targets, as costs, of all the sites that share this baseline."""
        chain = signal.chain
        if self not in chain.cache:
            chain.cache[self] = self._all(chain)
        return chain.cache[self]

    def _all(self, chain: Chain) -> tuple[list[Tensor], list[Tensor]]:
        values = [self.critic.cost(draw, signal).detach() for draw, signal in chain.steps]
        to_come = [signal.value for _, signal in chain.steps]
        end = torch.zeros_like(to_come[-1])
        values, to_come = [*values, end], [*to_come, end]
        advantages: list[Tensor] = []
        if self.steps is not None:
            for t in range(len(chain.steps)):
                last = min(t + self.steps, len(chain.steps))
                advantages.append(to_come[t] - to_come[last] + values[last] - values[t])
        else:
            running = end
            for t in reversed(range(len(chain.steps))):
                error = to_come[t] - to_come[t + 1] + values[t + 1] - values[t]
                running = error + self._decay * running
                advantages.append(running)
            advantages.reverse()
        targets = [advantage + value for advantage, value in zip(advantages, values, strict=False)]
        if self.normalize:
            mean, deviation = _moments(advantages, [draw.active for draw, _ in chain.steps])
            advantages = [(advantage - mean) / (deviation + 1e-8) for advantage in advantages]
        return advantages, targets


def _moments(advantages: list[Tensor], active: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the advantages of active draws: a finished episode's are no advantages."""
    every = torch.stack([advantage.expand_as(advantages[0]) for advantage in advantages])
    ones = torch.ones_like(every[0])
    counts = torch.stack([ones if which is None else which * ones for which in active])
    number = counts.sum()
    mean = (counts * every).sum() / number.clamp(min=1)
    variance = (counts * (every - mean).square()).sum() / (number - 1).clamp(min=1)
    return mean, variance.sqrt()
