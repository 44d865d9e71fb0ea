"""`fit`: train a program's parameters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ppgrad.analysis.history import History
from ppgrad.core.arguments import checked_seed
from ppgrad.core.folders import writable_folder
from ppgrad.core.generators import forked
from ppgrad.measurement.gradient import check_objective
from ppgrad.objectives import Objective
from ppgrad.train.logs import Logs
from ppgrad.train.loop import Trainer
from ppgrad.train.optimizers import stepper
from ppgrad.train.run_files import check_new, file_paths, sole_writer
from ppgrad.train.settings import (
    Arguments,
    Metrics,
    Settings,
    check_flags,
    check_functions,
    check_numbers,
    check_program_arguments,
    in_words,
)

logger = logging.getLogger("ppgrad")


def fit(
    objective: Objective,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    args: Arguments = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    steps: int,
    optimizer: Any = None,
    critic_optimizer: Any = None,
    learning_rate: float | None = None,
    schedule: Any = None,
    max_grad_norm: float | None = None,
    seed: int | None = 0,
    progress: bool = True,
    log_folder: str | Path | None = None,
    tensorboard: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    evaluate_every: int | None = None,
    evaluation_episodes: int = 100,
    evaluation_deterministic: bool = False,
    evaluate: Callable[[], Metrics] | None = None,
    callbacks: Sequence[Callable[[Metrics], object]] = (),
    stop_when: Callable[[Metrics], bool] | None = None,
    settings: Mapping[str, object] | None = None,
) -> History:
    """Train the parameters of a program (and of its guide, and of critics) on an objective.

    Each step is one estimate of the gradient, as `gradient` makes it, and one step of the optimizer
    downhill in the loss. Before the first one the program runs twice to be looked at; these runs, and evaluations, are
    in no count of steps or timesteps. Parameters are changed in place, wherever they live; Pyro's param store knows
    them all. What is trained is what the program registers, with ``pyro.param`` or ``pyro.module``, and the modules
    that it takes as arguments, is, or plays in a `rollout`. A network that it merely reads stays as it is, as in Pyro.
    Baselines learn from each step; the objective keeps their memory.

    A run that is killed at any moment and then called again with ``resume=True`` ends with the
    same weights, bit for bit, as one left alone, on the same machine. What the program keeps
    elsewhere (the state of a simulator, a data loader's place) is not in the checkpoint: let it
    depend on the global generators, or on the step through ``args``.

    Args:
        objective, model, guide, kwargs: as for `gradient`.
        args: positional arguments of both; or a function of the step, from 0 up, that returns them,
            such as that of a minibatch.
        steps: how many there are in all, those before a resumption included.
        optimizer: a torch optimizer's class (Adam if None), a function of the parameters that makes
            one, an instance that holds them, or a Pyro optimizer, such as `NaturalGradient`.
        critic_optimizer: the same for critics; None trains them with the others, or by Adam beside a
            `NaturalGradient`. ``learning_rate`` and ``schedule`` are then not theirs.
        learning_rate: None is the optimizer's own (Adam's is 1e-3).
        schedule: of the learning rate: ``"constant"``, ``"linear"`` or ``"cosine"`` (both to zero at
            the last step); a torch schedule's class or a function of the optimizer that makes one; an
            instance. It goes on by one each step; ``ReduceLROnPlateau`` sees the step's loss.
        max_grad_norm: gradients of a larger Euclidean norm are shortened to it, those of critics apart.
        seed: the run is a function of it, and the global generators are left as they were; None goes on
            with the global ones.
        progress: show a progress bar on a terminal.
        log_folder: where to write ``progress.csv``, a row a step, and TensorBoard's events. One training at a time.
        tensorboard: write events, too; needs ``pip install 'ppgrad[train]'``.
        checkpoint: the file to keep the run's state in: weights, optimizer, schedule, baselines' memory,
            critics, generators, metrics. It is replaced in one step, and loads with
            ``torch.load(path, weights_only=True)``.
        checkpoint_every: how many steps lie between checkpoints; there is one before the first and
            one after the last step.
        resume: go on from the checkpoint if there is one, with a note in the log if there is none. The checkpoint is
            to be of the same program (its parameters, its sites with their plates, its rollouts with
            environment, horizon and episodes) and of the same settings, ``steps`` among them if the schedule is a name.
            A checkpoint or a log that a run does not go on from is an error, not written over.
        evaluate_every: how many steps lie between evaluations; None for none.
        evaluation_episodes: how many, at least, are run afresh for one, under a seed of its own, without
            learning; particles for a program without rewards. Actions are drawn from the policy.
        evaluation_deterministic: policy sites take the mode of their distribution in evaluations instead.
        evaluate: returns more numbers for an evaluation; they are reported as ``eval/`` and their name.
        callbacks: each is called after every step with the step's metrics.
        stop_when: ends the run when it says so of the step's metrics.
        settings: what else makes the run what it is, by name, such as the arguments that the program was built with. A
            checkpoint of other ones is refused.

    Returns:
        The metrics of every step: see `History`.

    Raises:
        InvalidInput: an argument is out of its range; a file or folder cannot be written; the
            checkpoint is truncated, tampered with, or of another program. Before the first step; later if the disk is
            full: files end in whole rows, and the message names the last good checkpoint.
        InvalidProgram: there is nothing to train.
        NonFinite: a value, a reward, a log-probability or a gradient is NaN or infinite; the message
            names site, step and the last good checkpoint. Parameters are those of the step before.
        KeyboardInterrupt: on Ctrl-C, when the step is whole and a checkpoint of it is written.

    >>> import pyro, torch, pyro.distributions as dist, ppgrad
    >>> def program():
    ...     loc = pyro.param("loc", torch.tensor(1.0))
    ...     x = ppgrad.policy("x", dist.Normal(loc, 1.0))
    ...     ppgrad.cost("f", (x - 3.0) ** 2)
    >>> history = ppgrad.fit(ppgrad.ExpectedReturn(), program, steps=200, learning_rate=0.1, progress=False)
    >>> history.steps
    200
    >>> bool(abs(pyro.param("loc") - 3.0) < 0.5)
    True
    """
    check_objective(objective)
    seed = checked_seed(seed)
    check_numbers(steps, learning_rate, max_grad_norm, seed, checkpoint_every, evaluate_every, evaluation_episodes)
    check_flags(
        progress=progress, tensorboard=tensorboard, resume=resume, evaluation_deterministic=evaluation_deterministic
    )
    check_functions(evaluate, evaluate_every, callbacks, stop_when)
    check_program_arguments(args, kwargs, settings)
    file, folder = file_paths(checkpoint, log_folder, resume, tensorboard)
    check_new(file, folder, resume)
    rate = None if learning_rate is None else float(learning_rate)
    with forked(seed):
        how = Settings(
            steps=steps,
            stepper=stepper(optimizer, rate, schedule, steps, critic_optimizer),
            max_grad_norm=max_grad_norm,
            seed=seed,
            checkpoint=file,
            checkpoint_every=checkpoint_every,
            evaluate_every=evaluate_every,
            evaluation_episodes=evaluation_episodes,
            evaluation_deterministic=evaluation_deterministic,
            evaluate=evaluate,
            callbacks=callbacks,
            stop_when=stop_when,
            further=in_words(settings or {}),
        )
        trainer = Trainer(objective, model, guide, args, kwargs, how)
        return _train(trainer, folder, resume, tensorboard, progress)


def _train(trainer: Trainer, folder: Path | None, resume: bool, tensorboard: bool, progress: bool) -> History:
    """Train from the checkpoint or the first step to the last, with the files of the run written as it goes."""
    file = trainer.settings.checkpoint
    if file is not None:
        writable_folder(file.parent, "Choose another path for checkpoint.")
    if folder is not None:
        writable_folder(folder, "Choose another log_folder.")
    with sole_writer(folder):
        check_new(file, folder, resume)  # another training may have ended meanwhile
        _begin(trainer, file, resume)
        with Logs(trainer.table, folder, tensorboard, progress, trainer.settings.steps) as logs:
            return trainer.run(logs)


def _begin(trainer: Trainer, file: Path | None, resume: bool) -> None:
    """Go on from the checkpoint, or write the one before the first step."""
    if resume and file is not None and file.exists():
        trainer.resume(file)
        return
    if resume:
        logger.warning("There is no checkpoint %s to go on from: starting anew", file)
    trainer.save()  # before any log: whoever is killed from here on can go on
