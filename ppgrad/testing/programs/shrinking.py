"""Smaller programs that are much like one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ppgrad.testing.programs.data import Branch, Cost, Draw, Let, Loop, Observe, Place, Program, Step


def shrunk(program: Program, fails: Callable[[Program], bool], most: int = 200) -> Program:
    """The smallest program that is found to fail, by one change after the other.

    Args:
        program: that fails.
        fails: whether a program does; an error of its own means that it does not.
        most: how many programs are tried.
    """
    tries = 0
    while True:
        for smaller in _smaller(program):
            tries += 1
            if tries > most:
                return program
            if _holds(fails, smaller):
                program = smaller
                break
        else:
            return program


def _holds(fails: Callable[[Program], bool], program: Program) -> bool:
    try:
        return fails(program)
    except Exception:  # a step was taken out that others need
        return False


def _smaller(program: Program) -> Iterator[Program]:
    for steps in _less(program.steps):
        yield replace(program, steps=steps)


def _less(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    for i, step in enumerate(steps):
        before, after = steps[:i], steps[i + 1 :]
        for fewer in _instead(step):
            yield (*before, *fewer, *after)


def _instead(step: Step) -> Iterator[tuple[Step, ...]]:
    """What may stand in place of a step."""
    yield ()
    if isinstance(step, Loop):
        yield from ((replace(step, steps=fewer),) for fewer in _less(step.steps))
        if step.count > 1:
            yield (replace(step, count=1),)
    elif isinstance(step, Branch):
        yield step.then
        yield step.otherwise
        yield from ((replace(step, then=fewer),) for fewer in _less(step.then))
        yield from ((replace(step, otherwise=fewer),) for fewer in _less(step.otherwise))
    elif isinstance(step, Draw):
        yield (Let(step.variable, "torch.tensor(0.3)"),)
        if step.fn.mask or step.fn.elements_mask:
            fn, prior = (replace(each, mask="", elements_mask="") for each in (step.fn, step.prior))
            yield (replace(step, fn=fn, prior=prior),)
    if isinstance(step, Draw | Cost | Observe) and step.place != Place(step.place.plates):
        yield (replace(step, place=Place(step.place.plates)),)
