"""What an estimator or a baseline wants from the engine, said once, as data."""

from __future__ import annotations

from dataclasses import dataclass

from ppgrad.core.errors import InvalidInput

_OF_ALTERNATIVES = ("element_by_element", "relaxed", "slopes")


@dataclass(frozen=True)
class Needs:
    """What an estimator wants from the engine beside a draw and the cost downstream of it.

    Args:
        alternatives: the program run again with each of the values that ``sample`` gives as alternatives.
        element_by_element: an alternative replaces one element at a time where later costs couple the elements.
        relaxed: the costs of the alternatives carry their gradient (``Signal.relaxed``).
        slopes: the gradient of the cost with respect to the value, at each alternative (``Signal.gradients``).
        outside_support: the value drawn may lie between those of the distribution.
        fixed_density: in a cost, the site's log density is a function of its value alone, its parameters held fixed.
        fixed_parameters: a bound's weights as functions of the values alone, all parameters held fixed.
        chain: all draws of one execution that it serves, or its baseline, in program order (``Signal.chain``).
        joins_steps: one call of ``surrogate`` may serve many draws, side by side along the second lane dimension.
            It then reads of a draw its log density and its plates, of a signal its value, and nothing else.
        independent_particles: particles that share no noise.

    Raises:
        InvalidInput: something is wanted of alternatives, and no alternatives.
    """

    alternatives: bool = False
    element_by_element: bool = False
    relaxed: bool = False
    slopes: bool = False
    outside_support: bool = False
    fixed_density: bool = False
    fixed_parameters: bool = False
    chain: bool = False
    joins_steps: bool = False
    independent_particles: bool = False

    def __post_init__(self) -> None:
        wanted = [name for name in _OF_ALTERNATIVES if getattr(self, name)]
        if wanted and not self.alternatives:
            listed = ", ".join(f"{name}=True" for name in wanted)
            raise InvalidInput(f"Needs({listed}) is about alternatives. Write Needs(alternatives=True, {listed}).")
