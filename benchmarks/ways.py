"""What is timed in this process: ppgrad eager and compiled, Pyro's ELBOs, code by hand.

The contenders of a race share modules and the param store, which the suite clears between races.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer import SVI

import ppgrad
from benchmarks.timing import Burst, Contender, NotRun, in_process

EAGER = "ppgrad"
COMPILED = "ppgrad compiled"
COMPILE_SECONDS = 60.0


def ways(
    objective: Callable[..., ppgrad.Objective], burst: Callable[[ppgrad.Objective], Burst], compiled: bool = True
) -> list[Contender]:
    """ppgrad, eager and with ``compile=True``.

    Args:
        objective: makes one, given further keywords.
        burst: what is timed of it.
        compiled: whether the compiled way is raced, too.
    """
    eager = Contender(EAGER, lambda: burst(objective()))
    if not compiled:
        return [eager]

    def prepare() -> Burst:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="No C\\+\\+ compiler")  # what runs as it is is not compiled
            return burst(objective(compile=True))

    return [eager, Contender(COMPILED, prepare, limit=COMPILE_SECONDS)]


def accumulating(loss: Any, model: Any, guide: Any, *args: Any) -> Burst:
    """``loss_and_grads`` as SVI calls it, of ppgrad's objectives and of Pyro's, on gradients that start from none."""
    modules = [argument for argument in args if isinstance(argument, torch.nn.Module)]

    def step() -> None:
        for module in modules:
            module.zero_grad()
        loss.loss_and_grads(model, guide, *args)

    step()
    for module in modules:
        check_gradients(module)
    return in_process(step)


def backward(loss: Callable[[], torch.Tensor], module: torch.nn.Module) -> Burst:
    """``loss().backward()`` and the loss as a number, on gradients that start from none."""

    def step() -> None:
        module.zero_grad()
        value = loss()
        value.backward()
        value.item()

    step()
    check_gradients(module)
    return in_process(step)


def check_gradients(module: torch.nn.Module) -> None:
    """Raise if a gradient did not arrive: what does nothing is fast."""
    for name, parameter in module.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            raise NotRun(f"no gradient arrives at {name}")


def svi(loss: Any, model: Any, guide: Any, args: tuple[Any, ...], learning_rate: float) -> Burst:
    """Steps of Pyro's SVI with Adam."""
    inference = SVI(model, guide, pyro.optim.Adam({"lr": learning_rate}), loss=loss)
    inference.step(*args)
    return in_process(lambda: inference.step(*args))
