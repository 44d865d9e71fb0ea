"""The tensors in training, and what is done with their gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pyro import poutine
from torch import Tensor

from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.program.parameters import unconstrained


class TrainedTensors:
    """The parameters of the program and those of the critics, by name; a tensor that both have is the program's.

    Args:
        prepared: the program, as it was prepared for its first run.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.parameters: dict[str, Tensor] = dict(prepared.trained)
        self.critics = _critics(prepared)

    @property
    def all(self) -> dict[str, Tensor]:
        """Parameters and critics."""
        return {**self.parameters, **self.critics}

    @property
    def device(self) -> torch.device:
        """Of the first parameter."""
        return next(iter(self.parameters.values())).device

    def include(self, prepared: Prepared, trace: poutine.Trace) -> None:
        """Take up parameters that were not there before: of a branch first taken, or no longer frozen.

        Args:
            prepared: the program, as it was prepared for the run.
            trace: the ``pyro.param`` sites of the run.
        """
        self.parameters |= prepared.trained
        self.critics = _critics(prepared)
        known = {id(leaf) for leaf in self.all.values()}
        for name, node in trace.nodes.items():
            leaf = unconstrained(node["value"])
            if id(leaf) not in known and leaf.requires_grad:
                known.add(id(leaf))
                self.parameters[name] = leaf

    def clear_gradients(self) -> None:
        """Set every gradient to None."""
        for leaf in self.all.values():
            leaf.grad = None

    def gradient(self) -> tuple[Tensor, Tensor]:
        """The gradients of the parameters and of the critics, each as one vector on the parameters' device.

        Sparse gradients become dense ones.
        """
        for leaf in self.all.values():
            if leaf.grad is not None and leaf.grad.is_sparse:
                leaf.grad = leaf.grad.to_dense()
        parameters = _flat(self.parameters)
        return parameters, _flat(self.critics).to(parameters.device)

    def shorten_gradients(self, max_norm: float) -> None:
        """Shorten the gradient of the parameters to a Euclidean norm of at most ``max_norm``, and that of critics."""
        for leaves in (self.parameters, self.critics):
            torch.nn.utils.clip_grad_norm_(leaves.values(), max_norm)


def _critics(prepared: Prepared) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    known = {id(leaf) for leaf in prepared.trained.values()}
    for place, module in enumerate(prepared.executor.setup.assignment.modules()):
        for name, leaf in module.named_parameters():
            if leaf.requires_grad and id(leaf) not in known:
                known.add(id(leaf))
                found[f"critic_{place}.{name}"] = leaf
    return found


def _flat(tensors: Mapping[str, Tensor]) -> Tensor:
    """The gradients of all tensors as one vector, zero where there is none."""
    found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in tensors.values()]
    return torch.cat([gradient.detach().reshape(-1) for gradient in found]) if found else torch.zeros(0)
