"""Swinging a pendulum up: pathwise against the score function, on one objective.

Both train the policy of models/pendulum.py for the same objective, the expected return of 50 steps from anywhere, with
the same optimizer on as many environment steps. What is shown is the mean return of 100 fresh episodes of 200 steps,
as Gymnasium's Pendulum-v1 counts them: its steps and its seconds are not in the costs. Prints a table, in which the
steps and the seconds until −200 are medians of the runs that reached it, and draws the median and the range of the
seeds against environment steps and against seconds. The settings were chosen for pathwise, on other seeds.

The mark is soft actor-critic, which learns from each step many times over: about −157 after 20,000 steps.

    python benchmarks/pendulum.py [--seeds 5] [--steps 300] [--out comparison/pendulum.png]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import ppgrad
from ppgrad import ExpectedReturn, LeaveOneOut, Pathwise, ScoreFunction
from ppgrad.analysis.plots.figures import PALETTE
from ppgrad.analysis.saving import DOTS_PER_INCH
from ppgrad.envs import Pendulum

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from pendulum import problem, swinging_policy

SAC = -157.0
SWUNG_UP = -200.0
HORIZON, EPISODES = 50, 16
EVERY = 10
ESTIMATORS: dict[str, ppgrad.Estimator] = {
    "pathwise": Pathwise(),
    "score function, leave one out": ScoreFunction(LeaveOneOut(over="episodes")),
}


class Curve:
    """Returns of a policy while it trains; a callback of `ppgrad.fit`.

    ``points`` are environment steps, seconds and mean returns.
    """

    def __init__(self, policy: ppgrad.Policy):
        self._whole = ppgrad.rollout(Pendulum(), policy, 200, episodes=100)
        self._calls = 0
        self._begin = time.perf_counter()
        self.points: list[tuple[float, float, float]] = []
        self.evaluate(0.0)

    def __call__(self, metrics: Mapping[str, float]) -> None:
        self._calls += 1
        if self._calls % EVERY == 0:
            self.evaluate(metrics["time/total_timesteps"])

    def evaluate(self, steps: float) -> None:
        paused = time.perf_counter()
        with torch.no_grad(), torch.random.fork_rng(), pyro.validation_enabled(False):
            torch.manual_seed(10_000 + self._calls)
            returned = float(self._whole().returns.mean())
        self.points.append((steps, paused - self._begin, returned))
        self._begin += time.perf_counter() - paused


def trained(estimator: ppgrad.Estimator, steps: int, seed: int) -> np.ndarray:
    """The curve of one run: points × (environment steps, seconds, return)."""
    pyro.clear_param_store()
    policy = swinging_policy(seed=seed)
    program = ppgrad.rollout(Pendulum(), policy, HORIZON, episodes=EPISODES)
    settings = dict(problem(horizon=HORIZON, episodes=EPISODES).training)
    del settings["estimator"], settings["num_particles"]
    settings |= {"steps": steps, "seed": seed, "progress": False}
    curve = Curve(policy)
    ppgrad.fit(ExpectedReturn(estimator), program, callbacks=[curve], **settings)
    return np.array(curve.points)


def reached(curve: np.ndarray) -> np.ndarray | None:
    """Environment steps and seconds of the first evaluation that returned `SWUNG_UP`."""
    there = np.flatnonzero(curve[:, 2] >= SWUNG_UP)
    return curve[there[0], :2] if len(there) else None


def table(curves: Mapping[str, list[np.ndarray]]) -> Table:
    runs = len(next(iter(curves.values())))
    made = Table(title=f"Pendulum, return of an episode of 200 steps, median (range) of {runs} seeds")
    for column in ("estimator", "steps", "seconds", "last return", f"{SWUNG_UP:g} reached", "after steps", "seconds "):
        made.add_column(column, justify="left" if column == "estimator" else "right")
    for label, each in curves.items():
        last = np.array([curve[-1] for curve in each])
        there = [found for curve in each if (found := reached(curve)) is not None]
        after = [f"{statistics.median(column):,.0f}" for column in zip(*there, strict=True)] or ["–", "–"]
        low, middle, high = np.percentile(last[:, 2], (0, 50, 100))
        made.add_row(
            label,
            f"{np.median(last[:, 0]):,.0f}",
            f"{np.median(last[:, 1]):.0f}",
            f"{middle:.0f} ({low:.0f} to {high:.0f})",
            f"{len(there)} of {runs}",
            *after,
        )
    made.add_row("soft actor-critic, the mark", "20,000", "", f"{SAC:.0f}", "", "", "")
    return made


def picture(curves: Mapping[str, list[np.ndarray]]) -> Figure:
    """Median and range of the returns, against environment steps and against seconds."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    for ax, column, what in zip(
        figure.subplots(1, 2, sharey=True), (0, 1), ("environment steps", "seconds"), strict=True
    ):
        ax.spines[["top", "right"]].set_visible(False)
        for (label, each), colour in zip(curves.items(), PALETTE, strict=False):
            returns = np.array([curve[:, 2] for curve in each])
            place = np.median([curve[:, column] for curve in each], 0)
            ax.fill_between(place, returns.min(0), returns.max(0), color=colour, alpha=0.2, linewidth=0)
            ax.plot(place, np.median(returns, 0), color=colour, linewidth=1.6, label=label)
        ax.axhline(SAC, color="#666666", linewidth=1, linestyle="--", label="soft actor-critic at 20,000 steps")
        ax.set_xlabel(f"{what} of training")
    figure.axes[0].set_ylabel("mean return of 200 steps [reward]")
    runs = len(next(iter(curves.values())))
    text = f"Pendulum: pathwise against the score function\nLines: medians; bands: ranges of {runs} seeds"
    figure.suptitle(text, x=0.012, horizontalalignment="left", fontsize=9.5, linespacing=1.35)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("comparison") / "pendulum.png")
    given = parser.parse_args()
    torch.set_num_threads(1)
    curves: dict[str, list[np.ndarray]] = {label: [] for label in ESTIMATORS}
    for seed in range(given.seeds):
        for label, estimator in ESTIMATORS.items():
            curves[label].append(trained(estimator, given.steps, seed))
    Console(width=None if sys.stdout.isatty() else 130).print(table(curves))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    picture(curves).savefig(given.out, dpi=DOTS_PER_INCH)
    print(f"The picture is in {given.out}")


if __name__ == "__main__":
    main()
