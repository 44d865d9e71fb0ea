"""The command line: ``ppgrad list``, ``ppgrad compare`` and ``ppgrad train``.

What a command needs is imported when it runs, so that ``--help`` does not wait for torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ppgrad.cli import options
from ppgrad.cli.messages import explained, plain_messages

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Estimate gradients of expectations over Pyro programs, and measure what each way costs.",
    epilog="Start with: ppgrad compare models/gaussian_policy.py",
)


@app.command("list")
def list_estimators() -> None:
    """List the estimators and the baselines, with their sources."""
    from ppgrad.cli.reports import print_estimators

    print_estimators()


@app.command()
def compare(
    path: options.Program,
    estimators: options.Estimators = None,
    replicates: options.Replicates = 1000,
    particles: options.Particles = 8,
    seed: options.Seed = 0,
    out: options.Out = None,
    compile: options.Compile = False,
    device: options.Device = None,
    settings: options.Settings = None,
    traceback: options.Traceback = False,
) -> None:
    """Compare gradient estimators on a program: bias, variance, cost; tables, pictures, ArviZ.

    Estimators are words: ESTIMATOR[+BASELINE[=ARGUMENT]][@PARTICLES], as in score+loo=episodes@4.
    """
    plain_messages()
    with explained(traceback), _on_device(device):
        from ppgrad.cli.comparing import compare_problem
        from ppgrad.cli.reports import print_comparison

        comparison, files = compare_problem(path, estimators, replicates, particles, seed, out, compile, settings or [])
        print_comparison(comparison, files)


@app.command()
def train(
    path: options.Program,
    steps: options.Steps = None,
    estimator: options.Estimator = None,
    particles: options.TrainParticles = None,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    schedule: options.Schedule = None,
    max_grad_norm: options.MaxGradNorm = None,
    seed: options.TrainSeed = None,
    evaluate_every: options.EvaluateEvery = None,
    evaluation_episodes: options.EvaluationEpisodes = None,
    evaluation_deterministic: options.EvaluationDeterministic = False,
    out: options.TrainOut = None,
    checkpoint: options.Checkpoint = None,
    checkpoint_every: options.CheckpointEvery = None,
    resume: options.Resume = False,
    tensorboard: options.Tensorboard = False,
    compile: options.Compile = False,
    device: options.Device = None,
    settings: options.Settings = None,
    traceback: options.Traceback = False,
) -> None:
    """Train a program's parameters: checkpoints, logs, the gradient's variance; resume after a kill.

    What is left out is as problem() says in its training settings.
    """
    plain_messages()
    given = {
        "steps": steps,
        "estimator": estimator,
        "num_particles": particles,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "max_grad_norm": max_grad_norm,
        "seed": seed,
        "evaluate_every": evaluate_every,
        "evaluation_episodes": evaluation_episodes,
        "evaluation_deterministic": evaluation_deterministic or None,
        "checkpoint": checkpoint,
        "checkpoint_every": checkpoint_every,
        "resume": resume or None,
        "tensorboard": tensorboard or None,
        "compile": compile or None,
    }
    with explained(traceback), _on_device(device):
        from ppgrad.cli.reports import print_history
        from ppgrad.cli.training import train_problem

        history, files = train_problem(path, settings or [], given, out)
        print_history(history, files)


@contextmanager
def _on_device(name: str | None) -> Iterator[None]:
    from ppgrad.cli.devices import on_device

    with on_device(name):
        yield


def main() -> None:
    """Entry point of the ``ppgrad`` command: a mistake in its use is one line, too."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        context, told = getattr(error, "ctx", None), getattr(error, "format_message", None)
        if told is None:
            raise
        if not told():  # help was shown, for want of a command
            sys.exit(2)
        command = context.command_path if context is not None else "ppgrad"
        print(f"Error: {' '.join(told().split())} {command} --help explains.", file=sys.stderr)
        sys.exit(2)
