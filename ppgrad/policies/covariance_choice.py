"""Which covariance the arguments of a policy ask for, and where it starts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppgrad.core import InvalidInput
from ppgrad.policies.arguments import one_for_each, positive, whole
from ppgrad.policies.covariance import Covariance, DiagonalCovariance, FullCovariance, LowRankCovariance

DEFAULT_FLOOR = 1e-3


def chosen_covariance(
    where: str, kind: str, actions: int, floor: float | None, rank: int | None, scale_tril: Tensor
) -> Covariance:
    """The covariance to learn: ``"diagonal"``, ``"low_rank"`` or ``"full"``."""
    if kind != "low_rank" and rank is not None:
        raise InvalidInput(f"{where}(rank={rank!r}): only covariance='low_rank' has a rank. Leave rank out.")
    least = positive(where, "floor", DEFAULT_FLOOR if floor is None else floor)
    lowest = float(scale_tril.diagonal().min())
    if 0.99 * lowest <= least:
        raise InvalidInput(
            f"{where}(scale, floor): the smallest scale is {lowest:g}, the floor {least:g}. Write a floor below it."
        )
    if kind == "diagonal":
        return DiagonalCovariance(actions, least)
    if kind == "full":
        return FullCovariance(actions, least)
    rank = whole(where, "rank", 1 if rank is None else rank)
    if rank > actions:
        raise InvalidInput(
            f"{where}(rank={rank}): {actions} actions have rank {actions} at most. Write covariance='full'."
        )
    return LowRankCovariance(actions, least, rank)


def refuse_learning(where: str, floor: float | None, rank: int | None) -> None:
    """Raise if an argument is of use for a covariance that is learned only."""
    for name, value in (("floor", floor), ("rank", rank)):
        if value is not None:
            raise InvalidInput(
                f"{where}(covariance='constant', {name}={value!r}): a constant covariance is what scale says. "
                f"Leave {name} out, or write another covariance."
            )


def starting_scale(where: str, scale: Any, actions: int, kind: str) -> Tensor:
    """The Cholesky factor that ``scale`` describes, shape ``(actions, actions)``."""
    try:
        is_matrix = torch.as_tensor(scale).dim() == 2
    except (TypeError, ValueError, RuntimeError):
        is_matrix = False
    if not is_matrix:
        scales = one_for_each(where, "scale", scale, actions)
        if not bool((scales > 0).all()):
            raise InvalidInput(f"{where}(scale={scale!r}): write standard deviations above 0.")
        return scales.diag()
    matrix = torch.as_tensor(scale, dtype=torch.get_default_dtype()).detach().clone()
    is_factor = matrix.shape == (actions, actions) and bool(
        torch.isfinite(matrix).all() and (matrix == matrix.tril()).all() and (matrix.diagonal() > 0).all()
    )
    if not is_factor:
        raise InvalidInput(
            f"{where}(scale=…): a matrix is a Cholesky factor of shape ({actions}, {actions}), lower triangular with "
            "a positive diagonal. Write scale=torch.linalg.cholesky(covariance)."
        )
    if kind not in ("constant", "full"):
        raise InvalidInput(
            f"{where}(covariance={kind!r}): a matrix for scale needs covariance='constant' or 'full'. Write one "
            "standard deviation for each action."
        )
    return matrix
