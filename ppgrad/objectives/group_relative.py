"""The expected return, with the group advantages of language-model training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from ppgrad.core import Estimator, Facts, InvalidInput, InvalidProgram, Plate, Plates, Signal
from ppgrad.engine.running.record import Record, Served
from ppgrad.estimators import ScoreFunction
from ppgrad.objectives._shared.elements import is_of_one, plate_called
from ppgrad.objectives._shared.options import check_plate_name
from ppgrad.objectives._shared.requirements import check_only_scores
from ppgrad.objectives.expected_return import ExpectedReturn
from ppgrad.objectives.objective import Objective

Advantage = Literal["rloo", "grpo", "dr_grpo"]

_FACTS = {
    "rloo": Facts(source="Kool, van Hoof & Welling (2019), eq. 8; Ahmadian et al. (2024), eq. 8"),
    "grpo": Facts(source="Shao et al. (2024), DeepSeekMath, section 4.1", biased=True, order="scaled by 1/std"),
    "dr_grpo": Facts(source="Liu et al. (2025), Understanding R1-Zero-like training", biased=True, order="O(1/G)"),
}


class GroupRelative(ExpectedReturn):
    """J = E[R], estimated by Σ_i A_i ∇ log π / G over a group of G runs, A_i the advantage of run i.

    | advantage | A_i | expectation of the estimate |
    | --- | --- | --- |
    | "rloo" | R_i − mean of the others | ∇J |
    | "dr_grpo" | R_i − mean | (1 − 1/G) ∇J |
    | "grpo" | (R_i − mean) / (std + 1e-4) | not a gradient of J: easy and hard tasks weigh alike |

    A group are the particles, apart for each element of a plate: a prompt is an element, a response
    a particle. R_i of a draw is the return from there on. The standard deviation has G − 1 in its
    denominator. There is no clipping: the estimate is of one step from the policy that drew.

    Args:
        estimator: None or ``ScoreFunction()``: every site is served so.
        advantage: "rloo", "grpo" or "dr_grpo".
        num_particles: G ≥ 2.
        over: the name of a plate whose elements are a group, in all particles together; draws outside of it are
            compared over the particles.
        discount: γ, as in `ExpectedReturn`.
        options: see `Objective`.

    Raises:
        InvalidInput: ``num_particles`` is less than 2 without ``over``, or ``advantage`` is none of the three.
        InvalidAssignment: when run: ``over`` names no plate.
        InvalidProgram: when run, with ``over``: a draw acts on several elements.
        Unsupported: a site asks for another estimator.

    Source: Kool, van Hoof & Welling (2019), eq. 8 (RLOO); Shao et al. (2024), DeepSeekMath, section 4.1
    (GRPO); Liu et al. (2025), Understanding R1-Zero-like training (Dr. GRPO).
    """

    def __init__(
        self,
        estimator: Estimator | None = None,
        *,
        advantage: Advantage = "rloo",
        num_particles: int = 8,
        over: str | None = None,
        **options: Any,
    ):
        check_plate_name(type(self), over)
        if advantage not in get_args(Advantage):
            raise InvalidInput(f"GroupRelative(advantage={advantage!r}): write 'rloo', 'grpo' or 'dr_grpo'.")
        if not isinstance(num_particles, bool) and num_particles == 1 and over is None:
            raise InvalidInput("GroupRelative(num_particles=1): a group has two runs or more. Write num_particles=2.")
        self.over = over
        super().__init__(ScoreFunction() if estimator is None else estimator, num_particles=num_particles, **options)
        self.advantage = advantage

    @property
    def facts(self) -> Facts:
        return _FACTS[self.advantage]

    @property
    def wanted(self) -> type[Objective]:
        return ExpectedReturn

    def combine(self, records: Sequence[Record]) -> tuple[Tensor, Tensor, tuple[Served, ...]]:
        check_only_scores(records, "GroupRelative()", "ExpectedReturn(…)")
        loss, direct, served = super().combine(records)
        plate = None if self.over is None else plate_called(self.over, records)
        if plate is not None:
            _check_apart(records, plate)
        relative = [(draw, self._relative(signal, draw.plates, plate), estimator) for draw, signal, estimator in served]
        return loss, direct, tuple(relative)

    def _relative(self, signal: Signal, plates: Plates, plate: Plate | None) -> Signal:
        if plate is None or plate not in plates:
            return Signal({plates: group_advantage(signal.value, self.advantage)}, plates)
        group = signal.value.movedim(plate.dim, 1)
        advantage = group_advantage(group.flatten(0, 1), self.advantage).reshape(group.shape)
        return Signal({plates: advantage.movedim(1, plate.dim)}, plates)


def _check_apart(records: Sequence[Record], plate: Plate) -> None:
    for record in records:
        for place, entry in enumerate(record.entries):
            if entry.draw is not None and plate in entry.plates and not is_of_one(record, place, plate):
                raise InvalidProgram(
                    f"A draw of site '{entry.name}' acts on what several elements of plate '{plate.name}' cost, or on "
                    "what stands outside of it: its elements are no group. Leave out over=."
                )


def group_advantage(values: Tensor, advantage: Advantage) -> Tensor:
    """The advantage of each of G values along the first dimension; without others the value itself.

    >>> import torch
    >>> group_advantage(torch.tensor([0.0, 0.0, 3.0]), "rloo")
    tensor([-1.5000, -1.5000,  3.0000])
    """
    size = len(values)
    if size < 2:
        return values
    centered = values - values.mean(0, keepdim=True)
    if advantage == "rloo":
        return centered * (size / (size - 1))
    return centered if advantage == "dr_grpo" else centered / (values.std(0, keepdim=True) + 1e-4)
