"""The training loop: one step after another, and the state between them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.utils._pytree import tree_map

from ppgrad.analysis.history import History
from ppgrad.core import InvalidInput, InvalidProgram, NonFinite
from ppgrad.core.generators import aside, random_state, seed_generators
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.program.parameters import announce, buffers_unchanged
from ppgrad.engine.program.program import Program, program_of
from ppgrad.measurement.gradient import check_gradients_named
from ppgrad.measurement.nonfinite import gradient_explained
from ppgrad.measurement.replicates import distant_seed
from ppgrad.objectives import Objective
from ppgrad.train.checkpoint import read_checkpoint, write_checkpoint
from ppgrad.train.episodes import Earned, earned
from ppgrad.train.evaluation import Evaluation
from ppgrad.train.generators import generators_state, restore_generators
from ppgrad.train.interrupts import Interrupts
from ppgrad.train.logs import Logs, Table
from ppgrad.train.metrics import alpha, of_estimate
from ppgrad.train.noise import GradientNoise
from ppgrad.train.optimizers import Stepper
from ppgrad.train.state import check_fingerprint, copies, fingerprint, fixed_tensors, put_back, rollouts_of
from ppgrad.train.watch import Watch

Metrics = Mapping[str, float]
Arguments = tuple[Any, ...] | Callable[[int], tuple[Any, ...]]

logger = logging.getLogger("ppgrad")

_EVALUATIONS = 2**33
"""Seeds of evaluations lie above all that a person may choose."""


@dataclass(frozen=True)
class Settings:
    """What `fit` was told of how to train; see there."""

    steps: int
    stepper: Stepper
    max_grad_norm: float | None
    seed: int | None
    checkpoint: Path | None
    checkpoint_every: int
    evaluate_every: int | None
    evaluation_episodes: int
    evaluation_deterministic: bool
    evaluate: Callable[[], Metrics] | None
    callbacks: Sequence[Callable[[Metrics], object]]
    stop_when: Callable[[Metrics], bool] | None
    told: Mapping[str, str]


class Trainer:
    """One run of training: what is trained, and all that changes from step to step.

    Args:
        objective, model, guide, args, kwargs: as for `fit`.
        settings: how to train.

    Raises:
        InvalidProgram: there is nothing to train, or a gradient flows into a tensor without a name.
    """

    def __init__(self, objective: Objective, model: Any, guide: Any, args: Arguments, kwargs: Any, settings: Settings):
        self.objective = objective
        self.settings = settings
        self._model, self._guide, self._args, self._kwargs = model, guide, args, kwargs
        self.step = 0
        self.table = Table()
        self._noise = GradientNoise()
        self._elapsed, self._timesteps = 0.0, 0
        self._saved_at: int | None = None
        self._reruns = 0
        self._row: dict[str, float] = {}
        self._earned: Earned | None = None
        with aside(), torch.enable_grad():
            program = self._program()
            with buffers_unchanged(program):
                self._prepared = objective.prepare(model, guide, program.args, program.kwargs)
                with Watch(describes=True) as watch:
                    estimate = objective.estimate(self._prepared.executor)
            check_gradients_named(objective, self._prepared, estimate.surrogate)
            announce(self._prepared.parameters, self._prepared.announces)
        self.parameters = dict(self._prepared.parameters)
        self.critics = _critics(self._prepared)
        if not self.parameters:
            raise InvalidProgram(
                "The program has no parameter that requires a gradient, so there is nothing to train. Register one "
                "with pyro.param or pyro.module, or pass a module as an argument."
            )
        settings.stepper.own(self.parameters, self.critics)
        self._program_told = {"rollouts": rollouts_of(program), "sites": watch.sites}
        self._told = {
            **settings.stepper.describe(),
            "max_grad_norm": repr(settings.max_grad_norm),
            "seed": repr(settings.seed),
            **settings.told,
        }
        self._evaluation: Evaluation | None = None
        if settings.evaluate_every is not None:
            rewards = earned(estimate.rewards(self._prepared.executor.particles))
            lanes = self._prepared.executor.particles // objective.num_particles
            per_run = lanes if rewards is None else rewards.episodes // objective.num_particles
            self._evaluation = Evaluation(
                objective, settings.evaluation_episodes, per_run, settings.evaluation_deterministic, settings.evaluate
            )

    @property
    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        fixed = fixed_tensors(self._prepared.executor.program, {**self.parameters, **self.critics})
        return {"parameters": self.parameters, "critics": self.critics, "buffers": fixed}

    def run(self, logs: Logs) -> History:
        """Train until the last step, until ``stop_when`` says so, or until Ctrl-C.

        Raises:
            KeyboardInterrupt: after a checkpoint of the last whole step.
            InvalidInput: a log or a checkpoint cannot be written.
            NonFinite: names the site, the step and the last good checkpoint.
        """
        settings, stopped = self.settings, "steps"
        self._begin = time.perf_counter() - self._elapsed
        with Interrupts() as interrupts:
            while self.step < settings.steps:
                if self._is_to_stop():
                    stopped = "stop_when"
                    break
                row = self._one_step()
                try:
                    logs.write(row, self.table.append(row))
                except InvalidInput as error:
                    raise InvalidInput(f"{error}{self._last_good()}") from error
                for callback in settings.callbacks:
                    callback(row)
                if interrupts.asked:
                    self._interrupted()
                if self.step % settings.checkpoint_every == 0:
                    self.save()
            if stopped == "steps" and self._is_to_stop():
                stopped = "stop_when"
            if self._saved_at != self.step:
                self.save()
        return self.history(stopped)

    def history(self, stopped: str) -> History:
        """The metrics of all steps."""
        import pandas

        index = pandas.RangeIndex(1, self.table.rows + 1, name="step")
        metrics = pandas.DataFrame({name: list(column) for name, column in self.table.columns.items()}, index=index)
        settings = self.settings
        evaluations = self._prepared.executor.evaluations
        return History(metrics, repr(self.objective), settings.seed, settings.checkpoint, stopped, evaluations)

    def save(self) -> None:
        """Write a checkpoint, if there is to be one.

        Raises:
            NonFinite: a parameter is not finite; the last checkpoint stays.
        """
        path = self.settings.checkpoint
        if path is None:
            self._saved_at = self.step
            return
        for name, leaf in {**self.parameters, **self.critics}.items():
            if not bool(torch.isfinite(leaf).all()):
                raise NonFinite(
                    f"After step {self.step} parameter '{name}' is not finite. Lower the learning rate, or set "
                    f"max_grad_norm.{self._last_good()}"
                )
        tensors = self._tensors
        content = {
            "fingerprint": self._fingerprint(tensors),
            "step": self.step,
            **{kind: copies(leaves) for kind, leaves in tensors.items()},
            **self.objective.learned(),
            "optimizer": self.settings.stepper.state(),
            "generators": generators_state(),
            "noise": self._noise.state(),
            "vectorize": self._prepared.executor.vectorize,
            "metrics": self.table.state(),
            "elapsed": self._elapsed,
            "timesteps": self._timesteps,
        }
        try:
            write_checkpoint(path, content)
        except InvalidInput as error:
            raise InvalidInput(f"{error}{self._last_good()}") from error
        self._saved_at = self.step

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            InvalidInput: it cannot be read, or is of another program or run.
        """
        saved, tensors = read_checkpoint(path), self._tensors
        check_fingerprint(path, saved["fingerprint"], self._fingerprint(tensors), self._sites_of_another_run)
        for kind, leaves in tensors.items():
            put_back(leaves, saved[kind])
        device = next(iter(self.parameters.values())).device
        self.objective.relearn({**saved, "memory": _moved(saved["memory"], device)})
        self.settings.stepper.restore(saved["optimizer"])
        restore_generators(saved["generators"])
        self._noise.restore(_moved(saved["noise"], device))
        self._prepared.executor.vectorize &= saved["vectorize"]
        self.table.restore(saved["metrics"])
        self.step = self._saved_at = saved["step"]
        self._elapsed, self._timesteps = saved["elapsed"], saved["timesteps"]
        logger.info("Going on from step %s of %s", self.step, path)
        if self.step > self.settings.steps:
            logger.warning(
                "%s is of step %s, and steps=%s: nothing is left to do", path, self.step, self.settings.steps
            )

    def _sites_of_another_run(self) -> dict[str, str]:
        """With other draws each time; nothing is left of it."""
        self._reruns += 1
        with aside(), buffers_unchanged(self._program_now), torch.no_grad(), Watch(describes=True) as watch:
            seed_generators(self._reruns)
            self.objective.estimate(self._prepared.executor)
        return watch.sites

    def _fingerprint(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        return fingerprint(self.objective, tensors, self._program_told, self._told)

    def _program(self) -> Program:
        args = self._args(self.step) if callable(self._args) else self._args
        return program_of(self._model, self._guide, args, self._kwargs)

    def _one_step(self) -> dict[str, float]:
        settings = self.settings
        self._generators = random_state()
        try:
            with torch.enable_grad():
                program = self._program()
                self._prepared = self.objective.prepare(self._model, self._guide, program.args, program.kwargs)
                loss = float(settings.stepper.step(self._evaluate))
        except NonFinite as error:
            raise NonFinite(f"{error} It happened at step {self.step + 1}.{self._last_good()}") from error
        finally:
            self._forget_gradients()
        row = {"train/loss": loss, "train/learning_rate": settings.stepper.learning_rate, **self._row}
        settings.stepper.advance(loss)
        self.step += 1
        row |= {"train/n_updates": self.step, "time/iterations": self.step}
        if self._earned is not None:
            row["rollout/ep_rew_mean"] = self._earned.mean
            if self._earned.length is not None:
                row["rollout/ep_len_mean"] = self._earned.length
            self._timesteps += self._earned.steps
        if self._evaluation is not None and self.step % (settings.evaluate_every or 1) == 0:
            row |= self._evaluation(self._program_now, distant_seed(_EVALUATIONS + (settings.seed or 0), self.step))
        self._elapsed = time.perf_counter() - self._begin
        row["time/time_elapsed"] = self._elapsed
        if self._earned is not None:
            row["time/total_timesteps"] = self._timesteps
            row["time/fps"] = self._timesteps / self._elapsed
        return row

    @property
    def _program_now(self) -> Program:
        return self._prepared.executor.program

    def _evaluate(self) -> Tensor:
        """The loss and the gradients of one step; both are checked, and the gradients clipped."""
        self._forget_gradients()
        watch, memory = Watch(), self.objective.memory
        with poutine.trace(param_only=True) as captured, nullcontext() if self.objective.compile else watch:
            estimate = self.objective.accumulate_gradients(self._prepared)
        self._meet(captured.trace)
        gradient = _flat(self.parameters)
        critics = _flat(self.critics).to(gradient.device)
        norm, are_finite = torch.stack([gradient.norm(), torch.isfinite(critics).all().to(gradient.dtype)]).tolist()
        if not (math.isfinite(norm) and are_finite):
            leaves = self.parameters | self.critics
            gradients = {name: leaf.grad for name, leaf in leaves.items()}
            raise NonFinite(
                gradient_explained(self.objective, self._prepared, leaves, gradients, self._generators, memory)
            )
        variance, snr = self._noise.update(gradient)
        further = {
            "train/std": watch.std,
            "grad/khat": self._noise.khat,
            "grad/alpha": alpha(self._prepared, self.objective.memory),
        }
        self._row = {
            "grad/norm": norm,
            "grad/variance": variance,
            "grad/snr": snr,
            **of_estimate(estimate, watch.policies, memory),
            **{name: number for name, number in further.items() if number is not None},
        }
        self._earned = earned(estimate.rewards(self._prepared.executor.particles))
        if self.settings.max_grad_norm is not None:
            for leaves in (self.parameters, self.critics):
                torch.nn.utils.clip_grad_norm_(leaves.values(), self.settings.max_grad_norm)
        return estimate.loss.detach()

    def _meet(self, trace: poutine.Trace) -> None:
        """Take up parameters that were not there before: of a branch first taken, or thawed."""
        self.parameters |= self._prepared.parameters
        self.critics = _critics(self._prepared)
        known = {id(leaf) for leaf in (*self.parameters.values(), *self.critics.values())}
        for name, node in trace.nodes.items():
            leaf = node["value"].unconstrained()
            if id(leaf) not in known and leaf.requires_grad:
                known.add(id(leaf))
                self.parameters[name] = leaf
        self.settings.stepper.own(self.parameters, self.critics)

    def _forget_gradients(self) -> None:
        for leaf in (*self.parameters.values(), *self.critics.values()):
            leaf.grad = None

    def _is_to_stop(self) -> bool:
        stop_when, rows = self.settings.stop_when, self.table.rows
        if stop_when is None or rows == 0:
            return False
        return bool(stop_when({k: v for k, v in self.table.row(rows - 1).items() if not math.isnan(v)}))

    def _interrupted(self) -> None:
        self.save()
        path = self.settings.checkpoint
        held = "Nothing was saved, for want of a checkpoint." if path is None else f"Go on from {path} with resume."
        raise KeyboardInterrupt(f"Interrupted after step {self.step}. {held}")

    def _last_good(self) -> str:
        path = self.settings.checkpoint
        return (
            ""
            if path is None or self._saved_at is None
            else f" The last good checkpoint, {path}, is of step {self._saved_at}."
        )


def _critics(prepared: Prepared) -> dict[str, Tensor]:
    """The parameters of the critics; those that the program has, too, are the program's."""
    found: dict[str, Tensor] = {}
    known = {id(leaf) for leaf in prepared.parameters.values()}
    for place, module in enumerate(prepared.executor.assignment.modules()):
        for name, leaf in module.named_parameters():
            if leaf.requires_grad and id(leaf) not in known:
                known.add(id(leaf))
                found[f"critic_{place}.{name}"] = leaf
    return found


def _moved(tree: Any, device: torch.device) -> Any:
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)


def _flat(parameters: Mapping[str, Tensor]) -> Tensor:
    """The gradients of all parameters as one vector, zero where there is none."""
    found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in parameters.values()]
    return torch.cat([gradient.detach().reshape(-1) for gradient in found]) if found else torch.zeros(0)
