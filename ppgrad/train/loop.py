"""The training loop: one step after another, and the state between them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ppgrad.analysis.history import History
from ppgrad.core import InvalidInput, NonFinite
from ppgrad.core.generators import other_draws, random_state, seed_generators
from ppgrad.engine.program.parameters import buffers_unchanged, note_left_alone, nothing_to_train, register
from ppgrad.engine.program.program import Program, program_of
from ppgrad.measurement.gradient import check_gradients_named
from ppgrad.measurement.nonfinite import gradient_explained
from ppgrad.measurement.replicates import distant_seed
from ppgrad.objectives import Objective
from ppgrad.train.checkpoint import RunCheckpoint, read_checkpoint, refused_unless_it_fits
from ppgrad.train.evaluation import evaluation_of
from ppgrad.train.fingerprint import check_fingerprint, fingerprint, rollouts_of
from ppgrad.train.inspection import SiteObserver
from ppgrad.train.interrupts import Interrupts
from ppgrad.train.logs import Logs, Table
from ppgrad.train.metrics import EpisodeRewards, alpha, episode_rewards, of_estimate
from ppgrad.train.noise import GradientNoise
from ppgrad.train.settings import Arguments, Settings
from ppgrad.train.state import (
    check_values,
    copies,
    fixed_tensors,
    generators_state,
    on_device,
    put_back,
    restore_generators,
)
from ppgrad.train.trained import TrainedTensors

logger = logging.getLogger("ppgrad")

_EVALUATIONS = 2**33
"""Seeds of evaluations lie above all that a person may choose."""


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
        self._checkpoint = RunCheckpoint(settings.checkpoint)
        self._reruns = 0
        self._row: dict[str, float] = {}
        self._rewards: EpisodeRewards | None = None
        with other_draws(), torch.enable_grad():
            program = self._program()
            with buffers_unchanged(program):
                self._prepared = objective.prepare(model, guide, program.args, program.kwargs)
                with SiteObserver(describes=True) as observer:
                    estimate = objective.estimate(self._prepared.executor)
            check_gradients_named(objective, self._prepared, estimate.surrogate)
            register(self._prepared.trained, self._prepared.registered)
            note_left_alone(self._prepared.left_alone)
        self.trained = TrainedTensors(self._prepared)
        if not self.trained.parameters:
            raise nothing_to_train(self._prepared.left_alone)
        settings.stepper.own(self.trained.parameters, self.trained.critics)
        self._program_in_words = {"rollouts": rollouts_of(program), "sites": observer.sites}
        self._settings_in_words = settings.in_words()
        self._evaluation = evaluation_of(objective, settings, self._prepared, estimate)

    @property
    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        fixed = fixed_tensors(self._program_now, self.trained.all)
        return {"parameters": self.trained.parameters, "critics": self.trained.critics, "buffers": fixed}

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
                    raise InvalidInput(f"{error}{self._checkpoint.last_good}") from error
                for callback in settings.callbacks:
                    callback(row)
                if interrupts.asked:
                    self._interrupted()
                if self.step % settings.checkpoint_every == 0:
                    self.save()
            if stopped == "steps" and self._is_to_stop():
                stopped = "stop_when"
            if self._checkpoint.step != self.step:
                self.save()
        return self.history(stopped)

    def history(self, stopped: str) -> History:
        """The metrics of all steps."""
        settings, evaluations = self.settings, self._prepared.executor.evaluations
        return History(
            self.table.frame(), repr(self.objective), settings.seed, settings.checkpoint, stopped, evaluations
        )

    def save(self) -> None:
        """Write a checkpoint, if there is to be one.

        Raises:
            NonFinite: a parameter is not finite; the last checkpoint stays.
            InvalidInput: the file cannot be written.
        """
        if self._checkpoint.path is None:
            self._checkpoint.step = self.step
            return
        for name, leaf in self.trained.all.items():
            if not bool(torch.isfinite(leaf).all()):
                raise NonFinite(
                    f"After step {self.step} parameter '{name}' is not finite. Lower the learning rate, or set "
                    f"max_grad_norm.{self._checkpoint.last_good}"
                )
        self._checkpoint.write(self.step, self._state())

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds: all that the next steps depend on, with the objective's memory, and the metrics."""
        tensors = self._tensors
        return {
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

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            InvalidInput: it cannot be read, or is of another program or run.
        """
        saved, tensors = read_checkpoint(path), self._tensors
        check_fingerprint(path, saved.get("fingerprint"), self._fingerprint(tensors), self._sites_of_another_run)
        with refused_unless_it_fits(path):
            check_values(saved, tensors)
            self._restore(saved)
        for kind, leaves in tensors.items():
            put_back(leaves, saved[kind])
        logger.info("Going on from step %s of %s", self.step, path)
        if self.step > self.settings.steps:
            logger.warning(
                "%s is of step %s, and steps=%s: nothing is left to do", path, self.step, self.settings.steps
            )

    def _restore(self, saved: Mapping[str, Any]) -> None:
        device = self.trained.device
        self.objective.relearn({**saved, "memory": on_device(saved["memory"], device)})
        self.settings.stepper.restore(saved["optimizer"])
        restore_generators(saved["generators"])
        self._noise.restore(on_device(saved["noise"], device))
        self._prepared.executor.vectorize &= saved["vectorize"]
        self.table.restore(saved["metrics"])
        self.step = self._checkpoint.step = saved["step"]
        self._elapsed, self._timesteps = saved["elapsed"], saved["timesteps"]

    def _sites_of_another_run(self) -> dict[str, str]:
        """With other draws each time; nothing is left of it."""
        self._reruns += 1
        with (
            other_draws(),
            buffers_unchanged(self._program_now),
            torch.no_grad(),
            SiteObserver(describes=True) as observer,
        ):
            seed_generators(self._reruns)
            self.objective.estimate(self._prepared.executor)
        return observer.sites

    def _fingerprint(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        return fingerprint(self.objective, tensors, self._program_in_words, self._settings_in_words)

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
            raise NonFinite(f"{error} It happened at step {self.step + 1}.{self._checkpoint.last_good}") from error
        finally:
            self.trained.clear_gradients()
        row = {"train/loss": loss, "train/learning_rate": settings.stepper.learning_rate, **self._row}
        settings.stepper.advance(loss)
        self.step += 1
        row |= {"train/n_updates": self.step, "time/iterations": self.step}
        if self._rewards is not None:
            row |= self._rewards.metrics
            self._timesteps += self._rewards.steps
        if self._evaluation is not None and self.step % (settings.evaluate_every or 1) == 0:
            row |= self._evaluation(self._program_now, distant_seed(_EVALUATIONS + (settings.seed or 0), self.step))
        self._elapsed = time.perf_counter() - self._begin
        row["time/time_elapsed"] = self._elapsed
        if self._rewards is not None:
            row["time/total_timesteps"] = self._timesteps
            row["time/fps"] = self._timesteps / self._elapsed
        return row

    @property
    def _program_now(self) -> Program:
        return self._prepared.executor.program

    def _evaluate(self) -> Tensor:
        """The loss and the gradients of one step; both are checked, and the gradients clipped."""
        self.trained.clear_gradients()
        observer, memory = SiteObserver(), self.objective.memory
        with poutine.trace(param_only=True) as captured, nullcontext() if self.objective.compile else observer:
            estimate = self.objective.accumulate_gradients(self._prepared)
        self.trained.include(self._prepared, captured.trace)
        self.settings.stepper.own(self.trained.parameters, self.trained.critics)
        gradient, critics = self.trained.gradient()
        norm, are_finite = torch.stack([gradient.norm(), torch.isfinite(critics).all().to(gradient.dtype)]).tolist()
        if not (math.isfinite(norm) and are_finite):
            leaves = self.trained.all
            gradients = {name: leaf.grad for name, leaf in leaves.items()}
            raise NonFinite(
                gradient_explained(self.objective, self._prepared, leaves, gradients, self._generators, memory)
            )
        variance, snr = self._noise.update(gradient)
        further = {
            "train/std": observer.std,
            "grad/khat": self._noise.khat,
            "grad/alpha": alpha(self._prepared, self.objective.memory),
        }
        self._row = {
            "grad/norm": norm,
            "grad/variance": variance,
            "grad/snr": snr,
            **of_estimate(estimate, observer.policies, memory),
            **{name: number for name, number in further.items() if number is not None},
        }
        self._rewards = episode_rewards(estimate.rewards(self._prepared.executor.particles))
        if self.settings.max_grad_norm is not None:
            self.trained.shorten_gradients(self.settings.max_grad_norm)
        return estimate.loss.detach()

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
