"""All that a training run depends on, in and out of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppgrad.core import InvalidInput
from ppgrad.engine.held import held
from ppgrad.engine.record import Program
from ppgrad.objectives import Objective

Fingerprint = dict[str, Any]

_PROGRAM = ("parameters", "critics", "buffers")


def fingerprint(
    objective: Objective, tensors: Mapping[str, Mapping[str, Tensor]], settings: Mapping[str, str]
) -> Fingerprint:
    """What must be the same of two runs for one to go on where the other stopped.

    Args:
        objective: its class, its estimators and its numbers.
        tensors: parameters, critics and buffers by name; their shapes and kinds.
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
    return {"objective": _without_addresses(repr(objective)), "numbers": numbers, **shapes, "settings": dict(settings)}


def check_fingerprint(path: Path, there: Fingerprint, here: Fingerprint) -> None:
    """Raise if a checkpoint is of another program, or of a run with other settings.

    Raises:
        InvalidInput: names the first difference.
    """
    another = f"Checkpoint {path} is of another program: "
    mend = "Give the program and the objective that it was made with, or another path."
    for kind in _PROGRAM:
        for name in {**there[kind], **here[kind]}:
            was, is_now = there[kind].get(name, "missing"), here[kind].get(name, "missing")
            if was != is_now:
                raise InvalidInput(f"{another}{_singular(kind)} '{name}' is {was} there and {is_now} here. {mend}")
        if list(there[kind]) != list(here[kind]):
            raise InvalidInput(f"{another}its {kind} come in another order. {mend}")
    if there["objective"] != here["objective"]:
        raise InvalidInput(f"{another}its objective is {there['objective']} there and {here['objective']} here. {mend}")
    for group, word in (("numbers", "its objective has "), ("settings", "it was trained with ")):
        for name in there[group].keys() & here[group].keys():
            was, is_now = there[group][name], here[group][name]
            if was != is_now:
                raise InvalidInput(
                    f"Checkpoint {path} is of another run: {word}{name}={was}, and this one {name}={is_now}. "
                    f"Write {name}={was} to go on, or another path to start anew."
                )


def fixed_tensors(program: Program, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What modules of the program hold beside the parameters in training: buffers, frozen parameters."""
    seen = {id(leaf) for leaf in trained.values()}
    found: dict[str, Tensor] = {}
    for name, value in held(program):
        if isinstance(value, torch.nn.Module):
            for inner, leaf in (*value.named_parameters(), *value.named_buffers()):
                if id(leaf) not in seen:
                    seen.add(id(leaf))
                    found[f"{name}.{inner}" if name else inner] = leaf
    return found


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values, apart from any graph and from what they are part of."""
    return {name: leaf.detach().clone() for name, leaf in tensors.items()}


@torch.no_grad()
def put_back(tensors: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Give ``tensors``, in place, the values of ``saved``."""
    for name, leaf in tensors.items():
        leaf.copy_(saved[name])


def _singular(kind: str) -> str:
    return kind.removesuffix("s")


def _without_addresses(text: str) -> str:
    return " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", text).split())
