"""Trains in forks of this process, kills them at random moments, resumes; prints how it ended as JSON.

The process that forks has warmed up by a run of its own, in one thread, so that a fork starts at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import ppgrad

STEPS = 600
KILLS = 20

LONGEST = 25
"""About how many steps a run takes at most before it is killed, so that 20 of them leave some to take."""


def program() -> None:
    loc = pyro.param("loc", torch.zeros(2))
    with pyro.plate("episodes", 3):
        x = ppgrad.policy("x", dist.Normal(loc, 1.0).to_event(1), context=torch.ones(3, 1))
        noise = float(np.random.standard_normal()) + random.random()
        ppgrad.cost("f", (x - 3 + 0.1 * noise).square().sum(-1))


def train(folder: Path, steps: int = STEPS) -> None:
    objective = ppgrad.ExpectedReturn(ppgrad.ScoreFunction(), sites={"x": ppgrad.ScoreFunction(ppgrad.MovingAverage())})
    ppgrad.fit(
        objective,
        program,
        steps=steps,
        learning_rate=0.01,
        schedule="cosine",
        checkpoint=folder / "run.pt",
        checkpoint_every=2,
        log_folder=folder,
        resume=True,
        progress=False,
    )


def fork(folder: Path, steps: int = STEPS) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        train(folder, steps)
        status = 0
    finally:
        os._exit(status)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for name in ("warm", "timed", "alone", "killed"):
        (folder / name).mkdir()
    train(folder / "warm", 5)
    pyro.clear_param_store()
    begin = time.perf_counter()
    ended(fork(folder / "timed", LONGEST))
    longest = time.perf_counter() - begin
    moments = random.Random(int(sys.argv[2]))
    statuses, steps = [], []
    for _ in range(KILLS):
        child = fork(folder / "killed")
        time.sleep(moments.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        statuses.append(ended(child))
        steps.append(step_of(folder / "killed" / "run.pt"))
    last = ended(fork(folder / "killed"))
    alone = ended(fork(folder / "alone"))
    print(json.dumps({"statuses": statuses, "steps": steps, "last": last, "alone": alone}))


def step_of(path: Path) -> int:
    """The step of a checkpoint, which is to load; −1 where there is none yet."""
    return torch.load(path, weights_only=True)["content"]["step"] if path.exists() else -1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
