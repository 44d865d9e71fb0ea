"""The state of the random number generators, and of noise that was drawn up front in their place."""

from __future__ import annotations

from typing import Any, Protocol

import pyro


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
    """The state that `restore_generators` takes: of torch's, NumPy's and Python's generators, or of the stream."""
    return _stream[-1].position() if _stream else pyro.util.get_rng_state()


def restore_generators(state: Any) -> None:
    """Draw again what was drawn from ``state`` on."""
    if _stream:
        _stream[-1].go_back(state)
    else:
        pyro.util.set_rng_state(state)
