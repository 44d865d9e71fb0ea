"""The state of the random number generators, and of noise that was drawn up front in their place."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import pyro
import torch
from torch import Tensor


class Stream(Protocol):
    """Noise that is handed out in order, in place of a generator's."""

    def position(self) -> Any:
        """How much of it was handed out."""
        ...

    def go_back(self, position: Any) -> None:
        """Hand out again what followed on ``position``."""
        ...


_stream: list[Stream] = []


def hand_out(stream: Stream) -> None:
    """From now on programs draw from ``stream``."""
    _stream.append(stream)


def hand_out_no_more() -> None:
    """Programs draw again as before `hand_out`."""
    _stream.pop()


def draws_up_front() -> bool:
    """Whether programs draw from a stream: they are being traced, and no tensor has a value."""
    return bool(_stream)


def generator_state() -> Any:
    """The state that `restore_generators` takes: of every generator, or of the stream."""
    return _stream[-1].position() if _stream else random_state()


def restore_generators(state: Any) -> None:
    """Draw again what was drawn from ``state`` on."""
    if _stream:
        _stream[-1].go_back(state)
    else:
        set_random_state(state)


def seed_generators(seed: int) -> None:
    """What ``pyro.set_rng_seed`` does, without looking for accelerators on a machine that has none."""
    seed = int(seed)  # NumPy's integers are none for torch
    if torch._C._get_accelerator().type != "cpu":
        pyro.util.set_rng_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def random_state() -> Any:
    """The state of torch's, NumPy's and Python's generators, and of those of an accelerator in use."""
    return pyro.util.get_rng_state(), accelerator_state()


def set_random_state(state: Any) -> None:
    """Set the generators to what `random_state` saw."""
    host, accelerator = state
    pyro.util.set_rng_state(host)
    set_accelerator_state(accelerator)


def accelerator_state() -> list[Tensor]:
    """The state of the generator of each device of an accelerator; empty where none is in use."""
    module = _accelerator()
    if module is None:
        return []
    return module.get_rng_state_all() if hasattr(module, "get_rng_state_all") else [module.get_rng_state()]


def set_accelerator_state(state: Sequence[Tensor]) -> None:
    """Set the generators to what `accelerator_state` saw; a machine with fewer devices has no use for the rest."""
    module = _accelerator()
    if module is None or not state:
        return
    if hasattr(module, "set_rng_state_all"):
        module.set_rng_state_all(state[: module.device_count()])
    else:
        module.set_rng_state(state[0])


def _accelerator() -> Any:
    """Torch's module of the accelerator that is in use, such as ``torch.cuda``; None for none."""
    device = torch._C._get_accelerator()
    if device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    is_in_use = module.is_available() and getattr(module, "is_initialized", module.is_available)()
    return module if is_in_use else None


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
def other_draws() -> Iterator[None]:
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
