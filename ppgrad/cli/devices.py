"""Where the command line runs a problem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ppgrad.core import InvalidInput


def devices() -> list[str]:
    """The devices that this machine has."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    return ["cpu", *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]


@contextmanager
def on_device(name: str | None) -> Iterator[None]:
    """Tensors are made on the device of that name; None for torch's default.

    Raises:
        InvalidInput: there is no such device.
    """
    if name is None:
        yield
        return
    there = devices()
    if name not in there and f"{name}:0" not in there:
        raise InvalidInput(f"--device {name}: there is no such device here. Write one of {', '.join(there)}.")
    with torch.device(name):
        yield
