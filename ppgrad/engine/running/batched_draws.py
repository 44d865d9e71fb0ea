"""Draws of torch's that vmap does not know, with a rule for it: one call for the elements of all lanes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributions import dirichlet, von_mises

_rejection_sample = von_mises._rejection_sample


class _OfAllLanes(torch.autograd.Function):
    """A function of tensors of one shape that knows only leading dimensions, of which the lanes are one more."""

    @classmethod
    def of(cls, *inputs: Tensor) -> Tensor:
        """Its value."""
        result: Tensor = cls.apply(*inputs)  # type: ignore[no-untyped-call]
        return result

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        lanes = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(inputs, in_dims, strict=True)
        ]
        return cls.of(*lanes), 0


class _Dirichlet(_OfAllLanes):
    """A draw of a Dirichlet with its implicit gradient, and so one of a Beta, as in ``torch.distributions.dirichlet``.

    Source: Jankowiak & Obermeyer (2018), Pathwise derivatives beyond the reparameterization trick.
    """

    @staticmethod
    def forward(concentration: Tensor) -> Tensor:
        return torch._sample_dirichlet(concentration)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output, *inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _DirichletGradient.of(*ctx.saved_tensors, gradient)


class _DirichletGradient(_OfAllLanes):
    """What the gradient of a draw becomes for the concentration."""

    @staticmethod
    def forward(value: Tensor, concentration: Tensor, gradient: Tensor) -> Tensor:
        total = concentration.sum(-1, keepdim=True).expand_as(concentration)
        slope = torch._dirichlet_grad(value, concentration.contiguous(), total.contiguous())
        return slope * (gradient - (value * gradient).sum(-1, keepdim=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)


class _VonMises(_OfAllLanes):
    """A draw of a von Mises distribution, proposed until all elements are accepted; without a gradient."""

    @staticmethod
    def forward(loc: Tensor, concentration: Tensor, proposal_r: Tensor, like: Tensor) -> Tensor:
        drawn: Tensor = _rejection_sample(loc, concentration, proposal_r, torch.empty_like(like))
        return drawn

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)


class _DirichletOfLanes:
    """In place of torch's function. An uninitialized tensor is the lane's own, so that no two lanes share a draw."""

    @staticmethod
    def apply(concentration: Tensor) -> Tensor:
        return _Dirichlet.of(concentration + torch.empty_like(concentration).zero_())


def _von_mises(loc: Tensor, concentration: Tensor, proposal_r: Tensor, x: Tensor) -> Tensor:
    return _VonMises.of(*(tensor.expand(x.shape) for tensor in (loc, concentration, proposal_r)), x)


@contextmanager
def draws_of_lanes() -> Iterator[None]:
    """Let ``torch.distributions`` draw Dirichlet, Beta and von Mises values under vmap."""
    torchs: tuple[Any, Any] = (dirichlet, von_mises)
    before = dirichlet._Dirichlet, von_mises._rejection_sample
    torchs[0]._Dirichlet, torchs[1]._rejection_sample = _DirichletOfLanes, _von_mises
    try:
        yield
    finally:
        torchs[0]._Dirichlet, torchs[1]._rejection_sample = before
