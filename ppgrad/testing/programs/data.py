"""A program as data: sites, plates, loops, branches and costs; its expressions are Python text.

An expression may name the program's parameters, the values drawn before it, the variable of a loop around it, the
elements of a subsampled plate by the plate's name, ``torch``, and ``total``, the sum over the plates of a value. Plates
and events are its last dimensions, so the same text means the same for one run and for many runs side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Fn:
    """A distribution.

    Args:
        family: a key of `FAMILIES`.
        arguments: an expression for each of the family's parameters.
        event: sizes of the dimensions that ``to_event`` takes.
        mask: an expression for ``fn.mask(…)``, nothing for none.
        elements_mask: the same, of the elements inside of an event.
    """

    family: str
    arguments: tuple[str, ...]
    event: tuple[int, ...] = ()
    mask: str = ""
    elements_mask: str = ""


@dataclass(frozen=True)
class Place:
    """What stands around a site: plates, ``poutine.scale`` and ``poutine.mask``."""

    plates: tuple[str, ...] = ()
    scale: float = 1.0
    mask: str = ""


@dataclass(frozen=True)
class Draw:
    """A random site, drawn from ``fn``; under a bound that is the guide's, and the model's is ``prior``.

    Args:
        variable: what expressions call the value.
        site: its name, in which ``{t}`` stands for a loop's variable.
    """

    variable: str
    site: str
    fn: Fn
    prior: Fn
    place: Place = Place()


@dataclass(frozen=True)
class Observe:
    """An observed site of the model; a return leaves it out."""

    site: str
    fn: Fn
    data: str
    place: Place = Place()


@dataclass(frozen=True)
class Cost:
    """A cost, whose value has the shape of its plates; under a bound it is a log factor of the model."""

    site: str
    value: str
    place: Place = Place()


@dataclass(frozen=True)
class Let:
    """A name for an expression."""

    variable: str
    value: str


@dataclass(frozen=True)
class Loop:
    """``count`` times the same, in a sequential plate or in ``pyro.markov``."""

    kind: Literal["plate", "markov"]
    variable: str
    count: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Branch:
    """``if``: which steps there are depends on a value."""

    condition: str
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...] = ()


Step = Draw | Observe | Cost | Let | Loop | Branch


@dataclass(frozen=True)
class Plate:
    """A vectorized plate at a dimension of −1 or −2, of which ``subsample`` elements are drawn, 0 for all of them."""

    name: str
    size: int
    dim: int = -1
    subsample: int = 0


@dataclass(frozen=True)
class Program:
    """What is run, in order.

    Args:
        parameters: their values, as nested tuples of numbers.
        plates: those that steps stand in.
        steps: in program order.
        jumps: the cost jumps as a function of a continuous value, so that no pathwise gradient is right.
        by_slice: all that there is stands in one plate whose slices share nothing: a bound by weights is one of slices.
    """

    parameters: Mapping[str, Any]
    steps: tuple[Step, ...]
    plates: tuple[Plate, ...] = ()
    jumps: bool = False
    by_slice: bool = False


def walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    """All steps, those inside of loops and branches too."""
    for step in steps:
        yield step
        if isinstance(step, Loop):
            yield from walk(step.steps)
        elif isinstance(step, Branch):
            yield from walk(step.then + step.otherwise)


def texts(part: Any) -> Iterator[str]:
    """All texts in a part of a program, its expressions among them."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from texts(each)
    elif is_dataclass(part):
        for each in fields(part):
            yield from texts(getattr(part, each.name))
