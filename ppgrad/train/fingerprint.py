"""What must be the same of two runs for one to go on where the other stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ppgrad.core import InvalidInput
from ppgrad.engine.program.program import Program, functions
from ppgrad.objectives import Objective

Fingerprint = dict[str, Any]

_TENSORS = ("parameters", "critics", "buffers")

_RUNS = 8
"""How many more runs tell whether a program's sites vary from run to run."""


def fingerprint(
    objective: Objective,
    tensors: Mapping[str, Mapping[str, Tensor]],
    program: Mapping[str, Mapping[str, str]],
    settings: Mapping[str, str],
) -> Fingerprint:
    """What must be the same of two runs for one to go on where the other stopped.

    Args:
        objective: its class, its estimators and its numbers.
        tensors: parameters, critics and buffers by name; their shapes and kinds.
        program: its rollouts (see `rollouts_of`) and the sites of one run, by name, in words.
        settings: of the run, in words.
    """
    numbers = {
        name: repr(value)
        for name, value in vars(objective).items()
        if not name.startswith("_") and isinstance(value, bool | int | float | str)
    }
    shapes = {
        kind: {name: f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)}" for name, leaf in leaves.items()}
        for kind, leaves in tensors.items()
    }
    return {
        "objective": _without_addresses(repr(objective)),
        "numbers": numbers,
        **shapes,
        **program,
        "settings": dict(settings),
    }


def check_fingerprint(path: Path, there: Any, here: Fingerprint, run_again: Callable[[], Mapping[str, str]]) -> None:
    """Raise if a checkpoint is of another program, or of a run with other settings.

    Args:
        path: of the checkpoint.
        there: the checkpoint's fingerprint, as it was read.
        here: that of the run which is to go on.
        run_again: the sites of another run of the program, in case they vary from run to run.

    Raises:
        InvalidInput: names the first difference.
    """
    for name, value in here.items():
        if type(there) is not dict or type(there.get(name)) is not type(value):
            raise InvalidInput(f"Checkpoint {path} does not say of which program it is: its {name} are missing.")
    another = f"Checkpoint {path} is of another program: "
    mend = "Give the program and the objective that it was made with, or another path."
    _check_numbers(path, "it was trained with ", there["settings"], here["settings"])
    for kind in ("rollouts", *_TENSORS):
        for name in {**there[kind], **here[kind]}:
            was, is_now = there[kind].get(name, "missing"), here[kind].get(name, "missing")
            if was != is_now:
                what = f"the {name}" if kind == "rollouts" else f"{kind.removesuffix('s')} '{name}'"
                raise InvalidInput(f"{another}{what} is {was} there and {is_now} here. {mend}")
        if list(there[kind]) != list(here[kind]):
            raise InvalidInput(f"{another}its {kind} come in another order. {mend}")
    if there["objective"] != here["objective"]:
        raise InvalidInput(f"{another}its objective is {there['objective']} there and {here['objective']} here. {mend}")
    _check_numbers(path, "its objective has ", there["numbers"], here["numbers"])
    if there["sites"] != here["sites"]:
        difference = _other_site(there["sites"], [here["sites"], *(run_again() for _ in range(_RUNS))])
        if difference is not None:
            raise InvalidInput(f"{another}{difference}. {mend}")


def _check_numbers(path: Path, words: str, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    for name in [name for name in there if name in here]:
        was, is_now = there[name], here[name]
        if was != is_now:
            why = ", and its schedule depends on it" if name == "steps" else ""
            raise InvalidInput(
                f"Checkpoint {path} is of another run: {words}{name}={was}, and this one {name}={is_now}{why}. "
                f"Write {name}={was} to go on, or another path to start anew."
            )


def _other_site(there: Mapping[str, str], runs: Sequence[Mapping[str, str]]) -> str | None:
    """The first site that is as in none of the runs here; if which sites there are varies, one that is absent may be.

    A mistake of the program's writer shows in every run, a turn that a run took by chance does not.
    """
    varies = any(run.keys() != runs[0].keys() for run in runs)
    for name in {**there, **runs[0]}:
        was, now = there.get(name, "missing"), [run.get(name, "missing") for run in runs]
        is_absent = was == "missing" or set(now) == {"missing"}
        if was not in now and not (varies and is_absent):
            return f"site '{name}' is {was} there and {now[0]} here"
    return None


def rollouts_of(program: Program) -> dict[str, str]:
    """What identifies the rollouts that a program is or calls: environment, horizon and episodes, in words."""
    made = [function.rollout for function in functions(program) if hasattr(function, "rollout")]
    found: dict[str, str] = {}
    for place, each in enumerate(made):
        count = "" if len(made) == 1 else f" of rollout {place + 1}"
        found[f"environment{count}"] = _in_words(each.env)
        found[f"horizon{count}"] = repr(each.horizon)
        found[f"number of episodes{count}"] = repr(each.episodes)
    return found


def _in_words(env: Any) -> str:
    """An environment with its constants, whether or not its class says how to print it."""
    kind: Any = type(env)
    if kind.__repr__ is not object.__repr__:
        return _without_addresses(repr(env))
    constants = {key: value for key, value in vars(env).items() if isinstance(value, bool | int | float | str)}
    return f"{kind.__name__}({', '.join(f'{key}={value!r}' for key, value in constants.items())})"


def _without_addresses(text: str) -> str:
    return " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", text).split())
