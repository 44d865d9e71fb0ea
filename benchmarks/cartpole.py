"""CartPole-v1 of Gymnasium to a mean return of 475: ppgrad against Stable-Baselines3's PPO.

Every run stops when the last 100 episodes of its training return 475 in the mean, or after 100,000 steps. Then 100
fresh episodes, played greedily, confirm it. Runs of the same seed follow each other, on one thread each; seconds are
from making the environment to stopping, without imports.

    explore the weights   w ~ N(μ, e^{2λ}), once an episode, and the action is 1 where w·o > 0: a policy site whose
                          score function needs the episode's return alone; natural gradient of (μ, λ).
    explore the actions   a_t ~ π(·|o_t), a network: `rollout`, Adam.
    PPO                   a network; the settings that rl-zoo tuned for CartPole-v1.

A copy of the environment whose episode is over goes on with the others to the end of the batch: such steps are
taken and not used. Prints medians over seeds, which no setting was chosen on.

    python benchmarks/cartpole.py [--seeds 5] [--rival .venv-sb3/bin/python]

Source: Sehnke et al. (2010), Parameter-exploring policy gradients; Schulman et al. (2017), Proximal policy
optimization algorithms.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ppgrad
from ppgrad import CategoricalPolicy, ExpectedReturn, LeaveOneOut, NaturalGradient, ScoreFunction
from ppgrad.envs import GymnasiumEnv

TARGET = 475.0
LIMIT = 100_000
HORIZON = 500
SCORE = ScoreFunction(LeaveOneOut(over="episodes"))
UNITS = torch.tensor([2.4, 3.0, 0.21, 3.0])  # of an observation: about where an episode ends


class Counted:
    """What a run has cost and earned so far."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=100)
        self.taken = self.used = 0

    def add(self, returns: Tensor, taken: int) -> None:
        self.recent.extend(returns.tolist())
        self.used += int(returns.sum())  # a reward of 1 for each step
        self.taken += taken

    @property
    def mean(self) -> float:
        return statistics.mean(self.recent)

    def is_over(self, _: Any = None) -> bool:
        return self.taken >= LIMIT or (len(self.recent) == 100 and self.mean >= TARGET)


class Search(nn.Module):
    """N(μ, e^{2λ}) over the weights of a linear policy."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(4))
        self.log_std = nn.Parameter(torch.zeros(4))

    def forward(self) -> dist.Distribution:
        return dist.Normal(self.mean, self.log_std.exp()).to_event(1)


def played(env: GymnasiumEnv, episodes: int, act: Callable[[Tensor], Tensor]) -> Tensor:
    """The returns of episodes in which ``act`` chooses the actions."""
    play, alive, returns = env.play(episodes), torch.ones(episodes, dtype=torch.bool), torch.zeros(episodes)
    for t in range(HORIZON):
        step = play.step(t, act(play.observation), alive)
        returns = returns + step.reward * alive
        alive = alive & ~step.terminated & ~step.truncated
        if not alive.any():
            break
    return returns


def explore_weights(seed: int, episodes: int = 6, divergence: float = 2.0) -> dict[str, float]:
    """Search for a linear policy; episodes are played one after the other, so that each step taken is used."""
    env, search, counted = GymnasiumEnv("CartPole-v1"), Search(), Counted()

    def program() -> None:
        with pyro.plate("episodes", episodes):
            weights = ppgrad.policy("weights", search().expand([episodes])) / UNITS
            returns = torch.cat([played(env, 1, lambda o, w=w: (o @ w > 0).long()) for w in weights])
            counted.add(returns, int(returns.sum()))
            ppgrad.reward("return", returns)

    optimizer = NaturalGradient(search, lr=1e4, damping=1e-4, trust_region=divergence)
    return result(program, optimizer, counted, seed, 1.0, lambda o: (o @ (search.mean / UNITS) > 0).long())


def explore_actions(seed: int, episodes: int = 12, learning_rate: float = 0.03) -> dict[str, float]:
    """Train a network, from actions that are drawn from it."""
    env, policy, counted = GymnasiumEnv("CartPole-v1"), CategoricalPolicy(4, 2), Counted()
    play = ppgrad.rollout(env, policy, HORIZON, episodes=episodes)

    def program() -> None:
        lengths = play().lengths
        counted.add(lengths, int(lengths.max()) * episodes)

    optimizer = torch.optim.Adam(policy.parameters(), learning_rate)
    return result(program, optimizer, counted, seed, 0.98, lambda o: policy(o).logits.argmax(-1))


def result(
    program: Callable[[], None],
    optimizer: torch.optim.Optimizer,
    counted: Counted,
    seed: int,
    discount: float,
    greedy: Callable[[Tensor], Tensor],
) -> dict[str, float]:
    """Train until it is over, and confirm."""
    begin = time.perf_counter()
    objective = ExpectedReturn(SCORE, discount=discount)
    ppgrad.fit(
        objective, program, steps=10_000, optimizer=optimizer, seed=seed, progress=False, stop_when=counted.is_over
    )
    seconds = time.perf_counter() - begin
    torch.manual_seed(10_000 + seed)
    with torch.no_grad():
        confirmed = float(played(GymnasiumEnv("CartPole-v1"), 100, greedy).mean())
    return {
        "taken": counted.taken,
        "used": counted.used,
        "seconds": seconds,
        "recent": counted.mean,
        "confirmed": confirmed,
    }


def ppo(seed: int, python: Path) -> dict[str, float]:
    """One run of cartpole_ppo.py."""
    script = Path(__file__).with_name("cartpole_ppo.py")
    command = [python, script, str(seed), str(TARGET), str(LIMIT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def seeded(run: Callable[[int], dict[str, float]], seed: int) -> dict[str, float]:
    pyro.clear_param_store()
    torch.manual_seed(seed)
    return run(seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rival", type=Path, default=Path(__file__).parents[1] / ".venv-sb3" / "bin" / "python")
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs: dict[str, Callable[[int], dict[str, float]]] = {
        "ppgrad, explore the weights": explore_weights,
        "ppgrad, explore the actions": explore_actions,
    }
    if given.rival.exists():
        runs["Stable-Baselines3, PPO"] = lambda seed: ppo(seed, given.rival)
    else:
        print(f"{given.rival} is not there: PPO is left out. Write: make bench-training", file=sys.stderr)
    found: dict[str, list[dict[str, float]]] = {label: [] for label in runs}
    for seed in range(given.seeds):
        for label, run in runs.items():
            found[label].append(seeded(run, seed))
            told = ", ".join(f"{key} {value:,.0f}" for key, value in found[label][-1].items())
            print(f"seed {seed}, {label}: {told}", file=sys.stderr)
    table = Table(
        title=f"CartPole-v1 to a mean return of {TARGET:g} over 100 episodes, median (range) of {given.seeds} seeds"
    )
    for column in ("", "reached it", "steps taken", "steps used", "seconds", "greedy return"):
        table.add_column(column, justify="right" if column else "left")
    for label, rows in found.items():
        solved = sum(row["recent"] >= TARGET for row in rows)
        cells = [f"{solved} of {len(rows)}", *(spread(rows, key, ",.0f") for key in ("taken", "used"))]
        table.add_row(label, *cells, spread(rows, "seconds", ".1f"), spread(rows, "confirmed", ".0f"))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def spread(rows: list[dict[str, float]], key: str, form: str) -> str:
    values = [row[key] for row in rows]
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
