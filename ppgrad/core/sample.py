"""What an estimator hands to the program, and how particles share the noise that it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Sample(NamedTuple):
    """A drawn value, and whatever else the surrogate will need from inside the run.

    Args:
        value: what the program goes on with, shape batch + event.
        extras: further tensors, of the batch shape in front; they come back in ``Draw.extras``.
        alternatives: values to run the program again with, shape ``(n, *batch, *event)``; each is a
            branch, one more run.
    """

    value: Tensor
    extras: Mapping[str, Tensor] = {}
    alternatives: Tensor | None = None


class Draws(ABC):
    """Uniform noise for all particles of a gradient, uniform for each particle alone."""

    @abstractmethod
    def uniforms(
        self,
        particles: int,
        dimensions: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Noise in (0, 1) of shape ``(particles, dimensions)``; None for torch's defaults."""
