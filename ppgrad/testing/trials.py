"""One way to estimate a gradient, of one program: it conforms, it refuses, or it is biased as it says."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

import ppgrad
from ppgrad.analysis import describe, smallest_bias_found
from ppgrad.core import Estimator, PpgradError
from ppgrad.engine.program.program import program_of
from ppgrad.measurement import ready
from ppgrad.measurement.gradient import pure
from ppgrad.measurement.replicates import replicate
from ppgrad.objectives import Objective
from ppgrad.testing.programs.data import Branch, Let, Loop, Program, walk
from ppgrad.testing.programs.expectations import Exact, Goal
from ppgrad.testing.programs.printing import functions, printed

Word = Literal["conforms", "refuses", "biased", "fails"]

SUSPECT = 1e-3
"""A p-value below it is looked at again, with more and other draws; the level of what a trial finds at first sight."""

POWER = 0.999

LARGE = 0.1
"""A share of the gradient's largest component: a bias as large is not to be overlooked."""

MODES: dict[str, dict[str, Any]] = {
    "vmap": {},
    "loop": {"vectorize_particles": False},
    "compiled": {"compile": "eager"},
    "particles": {"num_particles": 3},
}
"""How the lanes of a program are run: options of the objective."""

_MEND = re.compile(r"\b([Cc]hoose|[Ww]rite|[Uu]se|[Gg]ive|[Pp]ut|[Kk]eep|[Pp]ass|[Ll]eave)\b")


@dataclass(frozen=True)
class Trial:
    """A program, an objective, an estimator for each of its sites by glob, and how the lanes are run."""

    program: Program
    goal: Goal
    sites: Mapping[str, Estimator]
    mode: str

    @property
    def script(self) -> str:
        """The program as Pyro code, and the gradient that is estimated."""
        options = [f"{key}={value!r}" for key, value in self._options.items()]
        options += ["reference=reference"] if self.goal.name == "KLRegularized" else []
        chosen = ", ".join(f'"{glob}": ppgrad.{estimator!r}' for glob, estimator in self.sites.items())
        guide = "guide" if self.goal.guided else "None"
        end = f"objective = ppgrad.{self.goal.name}({', '.join([f'sites={{{chosen}}}', *options])})"
        return (
            f"{printed(self.program, self.goal.guided)}\n\n{end}\nppgrad.gradient(objective, model, {guide}, seed=0)\n"
        )

    @cached_property
    def defined(self) -> dict[str, Any]:
        """The model, the guide, and reference distributions."""
        return functions(printed(self.program, self.goal.guided))

    @property
    def objective(self) -> Objective:
        """A new objective."""
        reference = {"reference": self.defined["reference"]} if self.goal.name == "KLRegularized" else {}
        made: Objective = getattr(ppgrad, self.goal.name)(sites=dict(self.sites), **self._options, **reference)
        return made

    @property
    def _options(self) -> dict[str, Any]:
        return {**MODES[self.mode], **self.goal.options}


@dataclass(frozen=True)
class Verdict:
    """What came of a trial.

    Args:
        word: of the four that there are.
        found: the smallest p-value, times the number of components.
        smallest_bias: that would have been found with probability 0.999, as a share of the gradient's largest
            component; infinite where heavy tails forbid to tell.
        message: of the refusal, or what failed.
    """

    word: Word
    found: float = 1.0
    smallest_bias: float = 0.0
    message: str = ""


def tried(
    trial: Trial, exact: Exact, replicates: int, failure_rate: float, most: int | None = None, seed: int = 0
) -> Verdict:
    """Run a trial.

    A first look has a level of 1e-3. It is followed by one with more draws, up to ``most``, if it would have
    overlooked a bias of a tenth of the gradient. What is suspicious is looked at again with eight times as many other
    draws, and fails at ``failure_rate``: so that is the chance that a correct estimator fails.
    """
    try:
        found, smallest = _looked(trial, exact, replicates, seed)
        if found >= SUSPECT and smallest > LARGE and most is not None:
            wanted = 1.2 * replicates * (min(smallest, 1e3) / LARGE) ** 2
            replicates = max(replicates, min(most, int(wanted)))
            found, smallest = _looked(trial, exact, replicates, seed + 1)
        if _is_declared(trial):
            return Verdict("biased", found, smallest)
        if found >= SUSPECT:
            return Verdict("conforms", found, smallest)
        found, smallest = _looked(trial, exact, 8 * replicates, seed + 2)
    except PpgradError as error:
        return _refusal(trial, error)
    except Exception as error:
        return Verdict("fails", message=f"{type(error).__name__}: {error}")
    if found >= failure_rate:
        return Verdict("conforms", found, smallest)
    return Verdict("fails", found, smallest, f"The mean is not the exact gradient, p = {found:.1g}.")


def _is_declared(trial: Trial) -> bool:
    """Whether a bias is what an estimator says of itself, or the cost jumps and it says that it may not."""
    accounts = [estimator.account for estimator in trial.sites.values()]
    at_a_jump = any(account.reparameterized and not account.finds_jumps for account in accounts)
    return any(account.biased for account in accounts) or (trial.program.jumps and at_a_jump)


def _looked(trial: Trial, exact: Exact, replicates: int, seed: int) -> tuple[float, float]:
    """The smallest p-value of all components, corrected for their number, and the smallest bias that is found."""
    objective, model, guide = trial.objective, trial.defined["model"], trial.defined.get("guide")
    with pure(seed, program_of(model, guide, ())), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = ready(objective, model, guide, (), None)
        found = replicate(objective, prepared, replicates, seed, None)
    extra = {name for name, each in found.draws.items() if name not in exact.gradient and bool(each.any())}
    missing = {name for name, each in exact.gradient.items() if name not in found.draws and bool(each.any())}
    if extra or missing:
        raise AssertionError(f"gradients of {extra} where there is none, none of {missing}")
    shared = [name for name in found.draws if name in exact.gradient]
    size = sum(exact.gradient[name].numel() for name in shared)
    scale = max((float(each.abs().max()) for each in exact.gradient.values()), default=0.0) or 1.0
    magnitude = float(found.losses.double().abs().mean())
    p_value, smallest = 1.0, 0.0
    for name in shared:
        reference, error = exact.gradient[name].detach().numpy(), exact.error[name].detach().numpy()
        seen = describe(found.draws[name].numpy(), reference, error, magnitude=magnitude)
        bias = smallest_bias_found(seen.bias_mcse, replicates, SUSPECT / size, POWER)
        p_value = min(p_value, float(np.min(seen.p_value)) * size)
        smallest = max(smallest, float(np.max(np.where(seen.inconclusive, np.inf, bias))) / scale)
    return p_value, smallest


def _refusal(trial: Trial, error: PpgradError) -> Verdict:
    """A refusal names a site, an estimator or the objective, and says what to write instead."""
    text = str(error)
    steps = list(walk(trial.program.steps))
    sites = [re.sub(r"\{.*?\}", "", step.site) for step in steps if not isinstance(step, Let | Loop | Branch)]
    sites += [f"loop_{step.variable}" for step in steps if isinstance(step, Loop)]
    names = [*sites, trial.goal.name, *(type(estimator).__name__ for estimator in trial.sites.values())]
    if not any(name in text for name in names) or not _MEND.search(text):
        return Verdict("fails", message=f"The refusal names no site or no mend: {type(error).__name__}: {text}")
    return Verdict("refuses", message=text)
