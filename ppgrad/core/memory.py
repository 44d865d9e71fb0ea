"""What is kept of a site from one gradient to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

Memory = Mapping[str, Tensor]
"""What an estimator keeps of a site from one gradient to the next; replaced, never changed in place."""


class Pilot(NamedTuple):
    """What held-out runs tell of a gradient: its projections on random directions, ``(directions, runs)``.

    Args:
        total: of the whole gradient.
        effects: of its derivative with respect to each gate of an estimator.
        pooled: the effects added up over all sites of this kind of estimator where the cost does not jump.
        jumps: the cost was seen to jump as the site's value moved; looked for where the facts say ``finds_jumps``.
    """

    total: Tensor
    effects: Mapping[str, Tensor]
    pooled: Mapping[str, Tensor] = {}
    jumps: bool = False
