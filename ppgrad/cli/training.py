"""``ppgrad train``: a problem's training settings, and what the command line says over them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ppgrad.analysis import History
from ppgrad.cli.loading import load_problem
from ppgrad.cli.specification import parse
from ppgrad.core import Estimator, InvalidInput, Problem
from ppgrad.core.folders import writable_folder
from ppgrad.core.generators import forked, other_draws
from ppgrad.objectives import Objective
from ppgrad.train import fit
from ppgrad.train.logs import CSV
from ppgrad.train.run_files import check_new

STEPS = 1000
PARTICLES = 8

_OF_THE_OBJECTIVE = ("estimator", "num_particles", "compile")
_OF_THE_PROBLEM = ("objective", "model", "guide", "args", "kwargs", "log_folder", "settings")


def train_problem(
    path: str, settings: list[str], given: Mapping[str, Any], out: Path | None
) -> tuple[History, list[Path]]:
    """Train the problem that ``PATH[:NAME]`` names.

    Args:
        path, settings: as for `load_problem`.
        given: what was said on the command line, None where nothing was.
        out: the folder for the results, or None.

    Returns:
        The history, and the files that were written.
    """
    problem, name, made_with = _problem_under_seed(path, settings, given.get("seed"))
    options = {**_checked(problem, path), **{key: value for key, value in given.items() if value is not None}}
    objective = _objective(problem, options)
    if isinstance(options.get("optimizer"), str):
        options["optimizer"] = _optimizer(options["optimizer"])
    folder = out or Path("training") / name
    checkpoint = Path(options.setdefault("checkpoint", folder / "checkpoint.pt"))
    check_new(checkpoint, folder, bool(options.get("resume")), "Add --resume", "another folder with --out")
    created = [place for place in (folder, *folder.parents) if not place.exists()]
    writable_folder(folder, "Choose another with --out.")
    try:
        history = fit(
            objective,
            problem.model,
            problem.guide,
            problem.args,
            **{"steps": STEPS, **options},
            log_folder=folder,
            settings=made_with,
        )
    except BaseException:
        for place in created:
            if any(place.iterdir()):
                break
            place.rmdir()
        raise
    return history, [checkpoint, folder / CSV, *history.save(folder)]


def _problem_under_seed(path: str, settings: list[str], seed: int | None) -> tuple[Problem, str, dict[str, object]]:
    """The problem, whose initial weights depend on the seed: it is told the seed if it takes one, and drawn under it.

    Raises:
        InvalidInput: the seed is out of its range, or as for `load_problem`.
    """
    if seed is not None and not 0 <= seed < 2**32:
        raise InvalidInput(f"seed={seed}: write --seed and an integer from 0 to {2**32 - 1}.")
    with forked(0 if seed is None else seed), other_draws():
        return load_problem(path, settings, {} if seed is None else {"seed": seed})


def _checked(problem: Problem, path: str) -> dict[str, Any]:
    """The problem's own training settings."""
    known = [name for name in inspect.signature(fit).parameters if name not in _OF_THE_PROBLEM]
    for name in problem.training:
        if name not in (*known, *_OF_THE_OBJECTIVE):
            listed = ", ".join([*_OF_THE_OBJECTIVE, *known])
            raise InvalidInput(f"training={{{name!r}: …}} of {path} is no setting. Write one of {listed}.")
    return dict(problem.training)


def _objective(problem: Problem, options: dict[str, Any]) -> Objective:
    """The problem's objective, with the estimator and the particles that ``options`` ask for, which are taken out."""
    chosen, particles = options.pop("estimator", None), options.pop("num_particles", PARTICLES)
    if isinstance(particles, bool) or not isinstance(particles, int) or particles < 1:
        raise InvalidInput(f"--particles {particles}: write 1 or more.")
    if isinstance(chosen, str):
        chosen, count = parse(chosen)
        particles = count or particles
    if chosen is not None and not isinstance(chosen, Estimator):
        raise InvalidInput(f"estimator={chosen!r}: write a word of ppgrad list, or an estimator.")
    compile = options.pop("compile", False)
    made: Objective = problem.objective(chosen, num_particles=particles, compile=compile, **problem.options)
    return made


def _optimizer(name: str) -> type[torch.optim.Optimizer]:
    classes = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    if name.lower() not in classes:
        listed = ", ".join(cls.__name__ for cls in classes.values())
        raise InvalidInput(f"--optimizer {name} is unknown. Write one of {listed}.")
    return classes[name.lower()]
