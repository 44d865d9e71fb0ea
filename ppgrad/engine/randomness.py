"""Random number generators, left as they were found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ppgrad.core.generators import random_state, seed_generators, set_random_state


@contextmanager
def forked(seed: int | None) -> Iterator[None]:
    """Run under ``seed``, then put all generators back; None: do nothing."""
    if seed is None:
        yield
        return
    state = random_state()
    try:
        seed_generators(seed)
        yield
    finally:
        set_random_state(state)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put the generators back on leaving."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


@contextmanager
def aside() -> Iterator[None]:
    """Draw other numbers than the caller will, and put the generators back.

    The numbers still depend on the caller's seed, so that a parameter whose initial value is
    random starts elsewhere under another seed.
    """
    state = random_state()
    try:
        seed_generators(int(torch.randint(2**31 - 1, (), device="cpu")))
        yield
    finally:
        set_random_state(state)
