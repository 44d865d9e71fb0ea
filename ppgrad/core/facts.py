"""What is known of an estimator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is known of an estimator; the tests and ``ppgrad list`` read it.

    Args:
        biased: the expectation of the estimate is not the gradient.
        order: how fast the bias falls, for a biased estimator ("O(h²)").
        assumes: what an unbiased estimator takes for granted of the cost.
        reparameterized: the value carries a gradient to the distribution's parameters.
        finds_jumps: where the cost jumps, it stops the gradient of the value.
        source: paper and equation.
    """

    source: str
    biased: bool = False
    order: str = ""
    assumes: str = ""
    reparameterized: bool = False
    finds_jumps: bool = False
