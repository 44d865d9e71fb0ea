"""Stable-Baselines3's PPO on CartPole-v1, for cartpole.py: one run, its result as a line of JSON.

The settings are those tuned for CartPole-v1 by rl-zoo. The interpreter that runs this has stable-baselines3 and no
ppgrad.

Source: Raffin (2020), RL Baselines3 Zoo, ``hyperparams/ppo.yml``.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

SETTINGS = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": lambda remaining: 0.001 * remaining,
    "clip_range": lambda remaining: 0.2 * remaining,
}
COPIES = 8


class Solved(BaseCallback):
    """Stops when the last 100 episodes return ``target`` in the mean."""

    def __init__(self, target: float):
        super().__init__()
        self.target = target
        self.recent = 0.0

    def _on_step(self) -> bool:
        returns = [episode["r"] for episode in self.model.ep_info_buffer]
        self.recent = sum(returns) / max(len(returns), 1)
        return len(returns) < 100 or self.recent < self.target


def main(seed: int, target: float, limit: int) -> None:
    torch.set_num_threads(1)
    begin = time.perf_counter()
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", COPIES, seed), seed=seed, device="cpu", **SETTINGS)
    solved = Solved(target)
    model.learn(limit, callback=solved)
    seconds = time.perf_counter() - begin
    confirmed, _ = evaluate_policy(model, make_vec_env("CartPole-v1", COPIES, 10_000 + seed), 100, deterministic=True)
    result = {"taken": model.num_timesteps, "used": model.num_timesteps, "seconds": seconds, "recent": solved.recent}
    print(json.dumps({**result, "confirmed": float(confirmed)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
