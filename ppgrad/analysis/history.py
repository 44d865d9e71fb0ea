"""What a training run says of itself, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppgrad.analysis import plots
from ppgrad.analysis.arviz import container
from ppgrad.analysis.saving import DOTS_PER_INCH, save_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class History:
    """The metrics of a run of `ppgrad.fit`, one row a step.

    Args:
        metrics: a row for each step, a column for each metric, NaN where a step has none.
        objective: what was trained for, and how its gradient was estimated.
        seed: of the run, or None.
        checkpoint: the file that holds the run's last state, or None.
        stopped: why it ended: ``"steps"`` or ``"stop_when"``.
        evaluations: program executions for one gradient.

    The columns:
        train/loss: minus the objective, as estimated for the step's gradient.
        train/learning_rate: of the step.
        train/policy_loss: mean over the draws at policy sites of log π(a) times the cost to come less the baseline;
            where the score function serves all of them.
        train/entropy_loss: mean over the same draws of log π(a), which estimates minus the entropy; where all
            estimators evaluate π.
        train/value_loss, train/explained_variance: the critics' mean squared error, and 1 − Var(return − value) /
            Var(return), over all of the step's draws.
        train/std: mean standard deviation of an action at Gaussian policy sites, before it is squashed.
        train/n_updates: steps of the optimizer so far.
        grad/norm: Euclidean norm of the gradient's estimate, before clipping; critics apart.
        grad/variance, grad/snr: of one estimate, from the estimates of the latest steps; see `GradientNoise`.
        grad/khat: how heavy the tail of the estimates is, by those of the latest 200 steps, from the 101st on.
        grad/alpha: the weight of the pathwise gradient in `InverseVariance`, averaged over sites.
        rollout/ep_rew_mean: mean undiscounted reward of an episode. An episode is an element of the
            plates that all reward sites share, in one particle.
        rollout/ep_len_mean: mean number of steps of an episode, where the program says when it is over, as
            `rollout` does.
        eval/mean_reward, eval/loss: the same of fresh runs under a seed of their own.
        time/iterations: steps so far.
        time/time_elapsed: seconds since the run began, over all of its resumptions.
        time/total_timesteps, time/fps: steps of all episodes so far, and for a second; rewards, where the program
            does not say when an episode is over. Runs that only look at the program, and evaluations, are not counted.

    A metric that does not apply is no column. With ``compile=True`` nothing is known of single sites, and
    train/{policy_loss, entropy_loss, value_loss, explained_variance, std} are left out.
    """

    metrics: DataFrame
    objective: str = ""
    seed: int | None = None
    checkpoint: Path | None = None
    stopped: str = "steps"
    evaluations: int = 1

    @property
    def steps(self) -> int:
        """How many steps the run has taken."""
        return int(self.metrics.index[-1]) if len(self.metrics) else 0

    @property
    def final(self) -> dict[str, float]:
        """The last finite value of each metric."""
        found = {name: column[np.isfinite(column)] for name, column in self.metrics.items()}
        return {str(name): float(column.iloc[-1]) for name, column in found.items() if len(column)}

    def summary(self) -> DataFrame:
        """For each metric its mean over the first and the last tenth of the run, its least and its greatest."""
        import pandas

        tenth = max(1, len(self.metrics) // 10)
        rows = {
            "first": self.metrics.head(tenth).mean(),
            "last": self.metrics.tail(tenth).mean(),
            "least": self.metrics.min(),
            "greatest": self.metrics.max(),
        }
        return pandas.DataFrame(rows).rename_axis("metric")

    def to_arviz(self, others: Mapping[int, History] | None = None) -> Any:
        """The run as ArviZ's ``InferenceData`` (0.23) or ``DataTree`` (1.x).

        Args:
            others: further runs to stand beside it, by their number from 1 up, such as those of other seeds.

        Returns:
            One group ``training``, each metric a variable of dimensions (run, step), ``/`` in its name
            written ``_``. A step that a run has not reached, or that has no such metric, is NaN.
        """
        from xarray import Dataset

        runs = {0: self, **(others or {})}
        steps = np.array(sorted({int(step) for run in runs.values() for step in run.metrics.index}), dtype=int)
        names = list(dict.fromkeys(str(name) for run in runs.values() for name in run.metrics.columns))
        tables = [run.metrics.reindex(index=steps, columns=names) for run in runs.values()]
        variables = {
            name.replace("/", "_"): (
                ("run", "step"),
                np.stack([table[name].to_numpy(float) for table in tables]),
                {"long_name": name},
            )
            for name in names
        }
        coords = {"run": np.array(list(runs)), "step": steps}
        attributes = {
            "inference_library": "ppgrad",
            "objectives": [run.objective for run in runs.values()],
            "seeds": [run.seed for run in runs.values()],
            "stopped": [run.stopped for run in runs.values()],
            "evaluations": [run.evaluations for run in runs.values()],
        }
        return container({"training": Dataset(variables, coords=coords)}, attributes)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``history.nc`` (`to_arviz`) and ``training.png`` (`plot_training`), or neither.

        Returns:
            The paths of the files.

        Raises:
            OSError: the folder cannot be written; the message names it.
        """

        def write(hidden: Path) -> list[str]:
            self.to_arviz().to_netcdf(str(hidden / "history.nc"))
            self.plot_training().savefig(hidden / "training.png", dpi=DOTS_PER_INCH)
            return ["history.nc", "training.png"]

        return save_files("training history", Path(folder), write)

    def plot_training(self) -> Figure:
        """Loss or return, the gradient's norm and its signal-to-noise ratio, against the steps."""
        return plots.plot_training(self.metrics, self.objective)
