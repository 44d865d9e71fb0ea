"""A problem: a program, what is wanted of it, and its exact gradient where one is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ppgrad.core.arguments import shown
from ppgrad.core.errors import InvalidInput


@dataclass(frozen=True)
class Problem:
    """What the command line and the conformance tests read of a program.

    Args:
        model: an ordinary Pyro model.
        objective: the objective's class.
        about: one line that says what the program is.
        guide: the guide, if the objective needs one.
        args: positional arguments of the model and the guide.
        exact: returns the exact gradient of the objective, ``{parameter name: tensor}``, each tensor of its
            parameter's shape; None where it is not known.
        options: keywords for the objective, such as ``discount``.
        smooth: no cost jumps as a function of a continuous site, so that pathwise is unbiased.
        training: what ``ppgrad train`` takes unless told otherwise: keywords of `fit`, such as ``steps``; also
            ``estimator`` (an estimator, or a word for one), ``num_particles`` and ``compile``.

    Raises:
        InvalidInput: ``objective`` is no class.
    """

    model: Callable[..., Any]
    objective: type
    about: str
    guide: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    exact: Callable[[], dict[str, Tensor]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    smooth: bool = True
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.objective, type):
            kind = type(self.objective).__name__
            raise InvalidInput(
                f"Problem(objective={shown(self.objective)}): write the class, objective={kind}; what it is made with "
                "goes in options={…}."
            )
