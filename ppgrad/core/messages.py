"""Send a site's message through Pyro's handlers."""

from __future__ import annotations

from typing import Any

import pyro
from pyro.distributions import Unit
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.runtime import _PYRO_STACK, Message, default_process_message
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch.distributions import Distribution


def send(name: str, fn: Any, value: Any, infer: Any, is_observed: bool) -> Message[..., Any]:
    """What ``pyro.sample`` sends inside of handlers, and how they leave it.

    As Pyro's ``apply_stack``, but a plate does not expand a distribution that has its plates' sizes already, it copies
    it: expanded parameters would lie an operation deeper in the graph.
    """
    message: Message[..., Any] = {
        "type": "sample",
        "name": name,
        "fn": fn,
        "is_observed": is_observed,
        "args": (),
        "kwargs": {},
        "value": value,
        "infer": infer,
        "scale": 1.0,
        "mask": None,
        "cond_indep_stack": (),
        "done": False,
        "stop": False,
        "continuation": None,
    }
    passed = 0
    for handler in reversed(_PYRO_STACK):
        passed += 1
        if type(handler) is pyro.plate:
            SubsampleMessenger._process_message(handler, message)
            if not _fits(message):
                BroadcastMessenger._pyro_sample(message)
            elif message["fn"] is fn and not isinstance(fn, Unit):
                message["fn"] = _copied(fn)
        else:
            handler._process_message(message)
        if message["stop"]:
            break
    default_process_message(message)
    for handler in _PYRO_STACK[-passed:]:
        handler._postprocess_message(message)
    if message["continuation"] is not None:
        message["continuation"](message)
    return message


def _fits(message: Any) -> bool:
    """Whether the distribution has the size of every plate that the message has passed."""
    shape = getattr(message["fn"], "batch_shape", ())
    return all(
        frame.dim is None or (len(shape) >= -frame.dim and shape[frame.dim] == frame.size)
        for frame in message["cond_indep_stack"]
    )


def _copied(fn: Any) -> Any:
    """``fn`` and the distributions that it is made of: what they compute on demand, and keep, stays with this run."""
    copied = object.__new__(type(fn))
    parts = vars(copied)
    parts.update(vars(fn))
    for name, value in vars(fn).items():
        if isinstance(value, Distribution):
            parts[name] = _copied(value)
    return copied
