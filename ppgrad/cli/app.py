"""The command line: ``ppgrad list``, ``ppgrad compare`` and ``ppgrad train``."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from ppgrad.analysis import Comparison, History
    from ppgrad.core import Problem
    from ppgrad.objectives import Objective

MODERATE = 64
"""How many runs for one sample an estimator may take that nobody has asked for by name."""

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
    from rich.table import Table

    from ppgrad.baselines import all_baselines
    from ppgrad.cli.specification import baseline_words, estimator_words
    from ppgrad.estimators import all_estimators

    table = Table("word", "estimator", "bias", "source", title="Estimators")
    words = {estimator: word for word, estimator in estimator_words().items()}
    for estimator in all_estimators():
        facts = estimator.facts
        declared = ("biased", facts.order, ": ") if facts.biased else ("unbiased", facts.assumes, " if ")
        bias = declared[2].join(filter(None, declared[:2]))
        table.add_row(words.get(estimator, "–"), estimator.__name__, bias, facts.source)
    _console().print(table)
    table = Table("baseline", "source", title=f"Baselines of score (as words: {', '.join(baseline_words())})")
    for baseline in all_baselines():
        table.add_row(baseline.__name__, baseline.source)
    _console().print(table)


_Path = Annotated[str, typer.Argument(metavar="PATH[:NAME]", help="A file with problem(), or another NAME.")]
_Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the gradient once; it takes a while, and then each is faster.")
]
_Device = Annotated[
    str | None, typer.Option(help="Where problem() makes its tensors: cpu, cuda, cuda:1, … Default: torch's own.")
]
_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An argument of problem(), such as covariance=full."),
]
_Traceback = Annotated[bool, typer.Option("--traceback", help="Show where in a program an error arose.")]


@app.command()
def compare(
    path: _Path,
    estimators: Annotated[
        str | None,
        typer.Option(help="Comma-separated: score, score+loo, pathwise, … Default: all unbiased that can serve."),
    ] = None,
    replicates: Annotated[int, typer.Option(help="Gradient estimates for each estimator, 2 or more.")] = 1000,
    particles: Annotated[int, typer.Option(help="Samples averaged in one estimate, unless a word says @N.")] = 8,
    seed: Annotated[int, typer.Option(help="The same seed gives the same numbers.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the results. Default: comparison/NAME.")] = None,
    compile: _Compile = False,
    device: _Device = None,
    settings: _Settings = None,
    traceback: _Traceback = False,
) -> None:
    """Compare gradient estimators on a program: bias, variance, cost; tables, pictures, ArviZ.

    Estimators are words: ESTIMATOR[+BASELINE[=ARGUMENT]][@PARTICLES], as in score+loo=episodes@4.
    """
    _plain_messages()
    with _explained(traceback), _on_device(device):
        comparison, files = _compare(path, estimators, replicates, particles, seed, out, compile, settings or [])
    _print_report(comparison, files)


@app.command()
def train(
    path: _Path,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimizer, in all. Default: 1000.")] = None,
    estimator: Annotated[
        str | None, typer.Option(help="score, score+loo, pathwise, … Default: pathwise where it can, else score.")
    ] = None,
    particles: Annotated[int | None, typer.Option(help="Samples averaged in one gradient. Default: 8.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="A name in torch.optim. Default: Adam.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the optimizer's own.")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant, linear or cosine.")] = None,
    max_grad_norm: Annotated[float | None, typer.Option(help="Shorten longer gradients to it.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same weights. Default: 0.")] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="Steps between evaluations. Default: none.")] = None,
    evaluation_episodes: Annotated[int | None, typer.Option(help="Episodes of an evaluation. Default: 100.")] = None,
    evaluation_deterministic: Annotated[
        bool, typer.Option("--evaluation-deterministic", help="Evaluate the policy's modes, not draws from it.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the results. Default: training/NAME.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Default: checkpoint.pt in the results' folder.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints. Default: 100.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's events, too.")] = False,
    compile: _Compile = False,
    device: _Device = None,
    settings: _Settings = None,
    traceback: _Traceback = False,
) -> None:
    """Train a program's parameters: checkpoints, logs, the gradient's variance; resume after a kill.

    What is left out is as problem() says in its training settings.
    """
    _plain_messages()
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
    from ppgrad.cli.training import train_problem

    with _explained(traceback), _on_device(device):
        history, files = train_problem(path, settings or [], given, out)
    _print_history(history, files)


@contextmanager
def _explained(traceback: bool) -> Iterator[None]:
    """Turn a mistake into one line and exit code 2, and Ctrl-C into one line and 130."""
    from ppgrad.core import PpgradError

    try:
        yield
    except PpgradError as error:
        _fail(str(error))
    except KeyboardInterrupt as error:
        print(str(error) or "Interrupted.", file=sys.stderr)
        raise typer.Exit(130) from error
    except Exception as error:
        if traceback:
            raise
        told, *_ = str(error).split("Trace Shapes:")  # Pyro appends a table of the sites
        _fail(f"{type(error).__name__}: {told.strip()} (--traceback shows where)")


@contextmanager
def _on_device(name: str | None) -> Iterator[None]:
    from ppgrad.cli.devices import on_device

    with on_device(name):
        yield


def _print_history(history: History, files: list[Path]) -> None:
    from rich.table import Table

    table = Table(title=history.objective, caption=f"{history.steps} steps; first, last: means over a tenth of them")
    for column in ("metric", "first", "last", "least", "greatest"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for metric, row in history.summary().iterrows():
        table.add_row(str(metric), *("–" if isnan(number) else f"{number:.4g}" for number in row))
    console = _console()
    console.print(table)
    console.print("Written:", *(f"  {file}" for file in files), sep="\n", highlight=False, soft_wrap=True)


def _compare(
    path: str,
    words: str | None,
    replicates: int,
    particles: int,
    seed: int,
    out: Path | None,
    compile: bool,
    settings: list[str],
) -> tuple[Comparison, list[Path]]:
    import ppgrad
    from ppgrad.cli.loading import load_problem
    from ppgrad.core.folders import writable_folder

    _check_numbers(replicates, particles, seed)
    if words is not None and not words.strip(" ,"):
        raise ppgrad.InvalidInput("--estimators is empty. Leave it out for all that can serve, or see ppgrad list.")
    problem, name, _ = load_problem(path, settings)
    objectives = _objectives(problem, words, particles, compile)
    folder = writable_folder(out or Path("comparison") / name, "Choose another with --out.")
    reference = None if problem.exact is None else problem.exact()
    comparison = ppgrad.compare(
        objectives,
        problem.model,
        problem.guide,
        problem.args,
        replicates=replicates,
        seed=seed,
        reference=reference,
        name=f"{name}: {problem.about}",
        progress=True,
    )
    if reference is not None:
        comparison = replace(comparison, reference_kind="exact, in closed form")
    return comparison, comparison.save(folder)


def _check_numbers(replicates: int, particles: int, seed: int) -> None:
    from ppgrad.core import InvalidInput

    if replicates < 2:
        raise InvalidInput(f"--replicates {replicates}: write 2 or more, for a variance.")
    if particles < 1:
        raise InvalidInput(f"--particles {particles}: write 1 or more.")
    if not 0 <= seed < 2**32:
        raise InvalidInput(f"--seed {seed}: write an integer from 0 to {2**32 - 1}.")


def _objectives(problem: Problem, words: str | None, particles: int, compile: bool) -> dict[str, Objective]:
    from ppgrad.cli.specification import parse
    from ppgrad.core import InvalidInput

    def objective(word: str) -> Objective:
        estimator, count = parse(word)
        options = {"num_particles": count or particles, "compile": compile, **problem.options}
        made: Objective = problem.objective(estimator, **options)
        return made

    chosen = [word.strip() for word in (words or "").split(",") if word.strip()]
    for word in chosen:
        if chosen.count(word) > 1:
            raise InvalidInput(f"--estimators has {word!r} twice. Write it once.")
    return {word: objective(word) for word in chosen} or _all_that_can_serve(problem, objective)


def _all_that_can_serve(problem: Problem, objective: Callable[[str], Objective]) -> dict[str, Objective]:
    """An objective for each estimator that serves the problem at a moderate price; the others are named."""
    from ppgrad.cli.specification import estimator_words
    from ppgrad.core import TooManyBranches, Unsupported
    from ppgrad.engine.program.program import program_of
    from ppgrad.measurement import ready
    from ppgrad.measurement.gradient import pure

    found: dict[str, Objective] = {}
    unable, costly, biased = [], [], []
    words = estimator_words()
    for word in ["score", "score+loo", *(word for word in words if word != "score")]:
        if word in words and words[word].facts.biased:
            biased.append(word)
            continue
        made = objective(word)
        program = program_of(problem.model, problem.guide, problem.args)
        try:
            with pure(0, program), warnings.catch_warnings(action="ignore"):
                branches = made.prepare(problem.model, problem.guide, problem.args).executor.branches
                if branches <= MODERATE:
                    branches = ready(made, problem.model, problem.guide, problem.args, None).executor.branches
        except Unsupported:
            unable.append(word)
            continue
        except TooManyBranches:
            costly.append(word)
            continue
        if branches > MODERATE:
            costly.append(f"{word} ({branches} runs for one sample)")
        else:
            found[word] = made
    if unable:
        print(f"Left out, since they cannot serve some site: {', '.join(unable)}.", file=sys.stderr)
    if biased:
        print(f"Left out unless --estimators names it, since biased: {', '.join(biased)}.", file=sys.stderr)
    if costly:
        print(f"Left out unless --estimators names it: {', '.join(costly)}.", file=sys.stderr)
    return found


def _print_report(comparison: Comparison, files: list[Path]) -> None:
    console = _console()
    console.print(_totals_table(comparison))
    for sentence in comparison.sentences():
        console.print(sentence, highlight=False)
    console.print("Written:", *(f"  {file}" for file in files), sep="\n", highlight=False, soft_wrap=True)


def _totals_table(comparison: Comparison) -> Any:
    from rich.table import Table

    table = Table(title=comparison.name, caption=f"reference: {comparison.reference_kind}")
    costs = ("runs", "ms a\nreplicate", "ms a\nstep", "variance\n× s")
    for column in ("estimator", "bias", "variance", "× least", "SNR", "tail", *costs):
        table.add_column(column, justify="left" if column in ("estimator", "bias", "tail") else "right")
    for label, row in comparison.totals().iterrows():
        table.add_row(
            str(label),
            _bias(row),
            f"{row['variance']:.3g}",
            f"{row['ratio']:.3g}" if isfinite(row["ratio"]) and row["ratio"] >= 1 else "–",
            f"{row['snr']:.2g}",
            f"{row['tail']} (k̂ {row['khat']:.2f})" if isfinite(row["khat"]) else str(row["tail"]),
            f"{row['evaluations']:.0f}",
            f"{1e3 * row['seconds']:.3g}",
            f"{1e3 * row['seconds_per_step']:.3g}",
            f"{row['work_variance']:.2g}",
        )
    return table


def _bias(row: Any) -> str:
    declared = ", biased by its own account" if row["biased"] else ""
    if row["verdict"] == "unknown":
        return f"unknown{declared}"
    if row["verdict"] == "found":
        return f"[red]found, p = {row['p_value']:.1g}[/red]{declared}"
    return f"{row['verdict']}, p = {row['p_value']:.2g}{declared}"


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def _plain_messages() -> None:
    logging.basicConfig(format="Note: %(message)s", level=logging.WARNING)
    logging.getLogger("ppgrad").setLevel(logging.INFO)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"Warning: {message}", file=sys.stderr)

    warnings.showwarning = show


def _fail(message: str) -> NoReturn:
    print("Error: " + " ".join(message.split()), file=sys.stderr)
    raise typer.Exit(2)


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
