"""Send a site's message through Pyro's handlers."""

from __future__ import annotations

from typing import Any

import pyro
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.runtime import _PYRO_STACK, Message, default_process_message
from pyro.poutine.subsample_messenger import SubsampleMessenger


def send(name: str, fn: Any, value: Any, infer: Any, is_observed: bool) -> Message[..., Any]:
    """What ``pyro.sample`` sends inside of handlers, and how they leave it.

    As Pyro's ``apply_stack``, but a plate does not expand a distribution that has its size already: an expanded
    distribution is a new one, and its parameters lie two operations deeper in the graph.
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
            shape: Any = getattr(message["fn"], "batch_shape", ())
            dim, size = handler.dim, handler.subsample_size
            if dim is not None and (len(shape) < -dim or shape[dim] != size):
                BroadcastMessenger._pyro_sample(message)
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
