"""A program as Pyro code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ppgrad.testing.programs.data import Branch, Cost, Draw, Fn, Let, Loop, Observe, Place, Program, Step, texts, walk
from ppgrad.testing.programs.families import FAMILIES

_HEAD = """import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

import ppgrad


def total(value):
    return value.sum()
"""


def printed(program: Program, guided: bool) -> str:
    """A script that defines ``model``, and ``guide`` where there is one, else ``reference`` distributions.

    Args:
        program: as data.
        guided: whether it is to be a model and a guide, or one program of policy sites and costs.
    """
    if guided:
        functions = [_function("guide", program, _Guide()), _function("model", program, _Model())]
    else:
        functions = [_function("model", program, _Policy()), _references(program)]
    return "\n\n".join([_HEAD, *functions])


def functions(script: str) -> dict[str, Any]:
    """What a script defines."""
    names: dict[str, Any] = {}
    exec(compile(script, "<program>", "exec"), names)
    return names


class _Policy:
    """Prints a program of policy sites and costs."""

    def fn(self, step: Draw) -> Fn:
        return step.fn

    def keeps(self, step: Step) -> bool:
        return not isinstance(step, Observe)

    word = "ppgrad.policy"


class _Guide(_Policy):
    """Prints the guide."""

    def keeps(self, step: Step) -> bool:
        return not isinstance(step, Observe | Cost)

    word = "pyro.sample"


class _Model(_Guide):
    """Prints the model."""

    def fn(self, step: Draw) -> Fn:
        return step.prior

    def keeps(self, step: Step) -> bool:
        return True


def _function(name: str, program: Program, face: _Policy) -> str:
    body = [line for step in program.steps for line in _lines(step, program, face)]
    text = "\n".join(body)
    head = [
        f'{parameter} = pyro.param("{parameter}", torch.tensor({_nested(value)}))'
        for parameter, value in program.parameters.items()
        if re.search(rf"\b{parameter}\b", text)
    ]
    for plate in program.plates:
        subsample = f", subsample_size={plate.subsample}" if plate.subsample else ""
        head.append(f'plate_{plate.name} = pyro.plate("{plate.name}", {plate.size}{subsample}, dim={plate.dim})')
    return f"def {name}():\n" + "\n".join("    " + line for line in [*head, *body] or ["pass"]) + "\n"


def _nested(value: Any) -> str:
    return "[" + ", ".join(map(_nested, value)) + "]" if isinstance(value, tuple) else repr(value)


def _lines(step: Step, program: Program, face: _Policy) -> list[str]:
    if not face.keeps(step):
        return []
    if isinstance(step, Let):
        return [f"{step.variable} = {step.value}"]
    if isinstance(step, Loop):
        every = f'pyro.plate("loop_{step.variable}", {step.count})'
        every = f"pyro.markov(range({step.count}))" if step.kind == "markov" else every
        return [f"for {step.variable} in {every}:", *_indented(step.steps, program, face)]
    if isinstance(step, Branch):
        lines = [f"if {step.condition}:", *_indented(step.then, program, face)]
        return [*lines, "else:", *_indented(step.otherwise, program, face)] if step.otherwise else lines
    name = f'f"{step.site}"' if "{" in step.site else f'"{step.site}"'
    if isinstance(step, Cost):
        return _placed(step.place, program, f"ppgrad.cost({name}, {step.value})")
    if isinstance(step, Observe):
        return _placed(step.place, program, f"pyro.sample({name}, {fn_text(step.fn)}, obs={step.data})")
    return _placed(step.place, program, f"{step.variable} = {face.word}({name}, {fn_text(face.fn(step))})")


def _indented(steps: Sequence[Step], program: Program, face: _Policy) -> list[str]:
    lines = [line for step in steps for line in _lines(step, program, face)]
    return ["    " + line for line in lines or ["pass"]]


def _placed(place: Place, program: Program, line: str) -> list[str]:
    subsampled = {plate.name for plate in program.plates if plate.subsample}
    around = [f"plate_{name} as {name}" if name in subsampled else f"plate_{name}" for name in place.plates]
    around += [f"poutine.scale(scale={place.scale})"] if place.scale != 1.0 else []
    around += [f"poutine.mask(mask={place.mask})"] if place.mask else []
    return [f"with {', '.join(around)}:", "    " + line] if around else [line]


def fn_text(fn: Fn) -> str:
    """A distribution as Pyro has it."""
    family = FAMILIES[fn.family]
    arguments = ", ".join(f"{key}={value}" for key, value in zip(family.arguments, fn.arguments, strict=True))
    text = f"dist.{family.name}({arguments})"
    text += f".mask({fn.elements_mask})" if fn.elements_mask else ""
    text += f".to_event({len(fn.event)})" if fn.event else ""
    return text + (f".mask({fn.mask})" if fn.mask else "")


def has_fixed_priors(program: Program) -> bool:
    """Whether no prior depends on a value or a parameter, so that a prior is a reference of its site."""
    names = {*program.parameters, *(step.variable for step in walk(program.steps) if hasattr(step, "variable"))}
    names |= {plate.name for plate in program.plates if plate.subsample}
    priors = [step.prior for step in walk(program.steps) if isinstance(step, Draw)]
    return not any(re.search(rf"\b{name}\b", text) for prior in priors for text in texts(prior) for name in names)


def _references(program: Program) -> str:
    if not has_fixed_priors(program):
        return "reference = None\n"
    draws = {step.site: step for step in walk(program.steps) if isinstance(step, Draw)}
    lines = [
        f'    "{re.sub("{.*}", "*", site)}": {fn_text(replace(step.prior, mask="", elements_mask=""))},'
        for site, step in draws.items()
    ]
    return "\n".join(["reference = {", *lines, "}"]) + "\n"
