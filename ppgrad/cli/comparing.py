"""``ppgrad compare``: the objectives that are asked for, or all that can serve, on a problem."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ppgrad
from ppgrad.analysis import Comparison
from ppgrad.cli.loading import load_problem
from ppgrad.cli.specification import estimator_words, parse
from ppgrad.core import InvalidInput, Problem, TooManyBranches, Unsupported
from ppgrad.core.folders import writable_folder
from ppgrad.engine.program.program import program_of
from ppgrad.measurement import ready
from ppgrad.measurement.gradient import pure
from ppgrad.objectives import Objective

MODERATE = 64
"""How many runs for one sample an estimator may take that nobody has asked for by name."""


def compare_problem(
    path: str,
    words: str | None,
    replicates: int,
    particles: int,
    seed: int,
    out: Path | None,
    compile: bool,
    settings: list[str],
) -> tuple[Comparison, list[Path]]:
    """Compare estimators on the problem that ``PATH[:NAME]`` names.

    Args:
        path, settings: as for `load_problem`.
        words: of the estimators, with commas; None for all that can serve.
        replicates, seed: as for `ppgrad.compare`.
        particles: for a word that says none.
        out: the folder for the results, or None.
        compile: whether objectives compile their gradient.

    Returns:
        The comparison, and the files that were written.

    Raises:
        InvalidInput: a number is out of its range, or a word is unknown or there twice.
    """
    _check_numbers(replicates, particles, seed)
    if words is not None and not words.strip(" ,"):
        raise InvalidInput("--estimators is empty. Leave it out for all that can serve, or see ppgrad list.")
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
    if replicates < 2:
        raise InvalidInput(f"--replicates {replicates}: write 2 or more, for a variance.")
    if particles < 1:
        raise InvalidInput(f"--particles {particles}: write 1 or more.")
    if not 0 <= seed < 2**32:
        raise InvalidInput(f"--seed {seed}: write an integer from 0 to {2**32 - 1}.")


def _objectives(problem: Problem, words: str | None, particles: int, compile: bool) -> dict[str, Objective]:
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
