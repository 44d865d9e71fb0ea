"""The words a program is written in: `policy`, `reward`, `cost`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.runtime import am_i_wrapped, get_plates
from torch import Tensor

from ppgrad.core.errors import InvalidProgram
from ppgrad.core.messages import send


def policy(
    name: str,
    fn: dist.TorchDistribution,
    *,
    context: Any = None,
    obs: Tensor | None = None,
    infer: Mapping[str, Any] | None = None,
) -> Tensor:
    """``pyro.sample`` marked as a policy site.

    Args:
        name: the site.
        fn: the action's distribution.
        context: what a learned baseline may look at, such as the state: a tensor, or a tuple or
            dict of tensors, that does not depend on the action.
        obs: an observed action, or None.
        infer: as for ``pyro.sample``; ``{"gradient": estimator}`` chooses the site's estimator,
            ``{"active": mask}`` says that where ``mask`` is false nothing depends on the action, and
            ``{"differentiable": False}`` that what follows leaves torch's graph (NumPy, ``.item()``): the
            score function is then the default, and what differentiates the cost is refused.

    Returns:
        The action, of shape ``fn.shape()``.

    Raises:
        InvalidProgram: ``name`` is no text or empty; ``fn`` is no distribution of Pyro's. An estimator that cannot
            serve the site says so when an objective runs the program.
    """
    _check_site(name, fn)
    infer = {**(infer or {}), "policy": True, "context": context}
    if not am_i_wrapped():
        return pyro.sample(name, fn, obs=obs, infer=infer)
    is_observed = infer.pop("is_observed", obs is not None)
    action: Tensor = send(name, fn, obs, infer, is_observed)["value"]
    return action


def reward(name: str, value: Tensor | np.ndarray | float, *, time: int | None = None, predicted: bool = False) -> None:
    """A reward site: the objective adds up its values.

    Under Pyro's own ELBOs it is a log factor, which makes control an inference problem.

    Args:
        name: the site.
        value: shaped like the plates around it, or broadcastable to them.
        time: the exponent of the discount; None counts the reward sites before this one.
        predicted: a critic's prediction of what is still to come: part of the objective, not of the returns
            that training reports.

    Raises:
        InvalidProgram: ``name`` is no text or empty; ``value`` does not broadcast to the plates around it.

    Source: Levine (2018), Reinforcement learning and control as probabilistic inference, eq. 3.
    """
    _check_name(name)
    value = torch.tensor(value) if isinstance(value, np.ndarray) else torch.as_tensor(value)  # NumPy may write on
    if not value.is_floating_point():
        value = value.to(torch.get_default_dtype())
    factor = _Earned(value, has_rsample=True, validate_args=False)
    observed = value.new_empty(factor.shape())
    infer = {"is_auxiliary": True, "reward": True, "time": time, "predicted": predicted}
    if not am_i_wrapped():
        pyro.sample(name, factor, obs=observed, infer=infer)
        return
    try:
        message = send(name, factor, observed, infer, True)
    except ValueError:
        _check_shape(name, value, get_plates())
        raise
    frames = get_plates() if message["stop"] else message["cond_indep_stack"]
    # What no plate had to broadcast fits them all; where they are as many as dimensions, nothing is left over.
    if message["fn"] is not factor or len(frames) != value.dim() or any(frame.dim is None for frame in frames):
        _check_shape(name, value, frames, message["infer"].get("_dim_to_id", ()))


def cost(name: str, value: Tensor | np.ndarray | float, *, time: int | None = None) -> None:
    """A reward site of minus ``value``.

    Args:
        name: the site.
        value: shaped like the plates around it, or broadcastable to them; a bool counts as 0 or 1.
        time: as for `reward`.

    Raises:
        InvalidProgram: ``value`` does not broadcast to the plates around it.
    """
    value = torch.as_tensor(value)
    reward(name, -(value.int() if value.dtype == torch.bool else value), time=time)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise InvalidProgram(f"A site has the name {name!r}. Write a text that is not empty, such as 'x'.")


def _check_site(name: object, fn: object) -> None:
    _check_name(name)
    if isinstance(fn, TorchDistributionMixin):
        return
    kind = type(fn).__name__
    if not isinstance(fn, torch.distributions.Distribution):
        raise InvalidProgram(f"Site '{name}': {kind} is no distribution. Write one of pyro.distributions.")
    there = f"pyro.distributions.{kind}" if hasattr(dist, kind) else "a pyro.distributions.TorchDistribution"
    raise InvalidProgram(
        f"Site '{name}': {kind} is torch's distribution, which knows nothing of plates and masks. Write {there}."
    )


class _Earned(dist.Unit):
    """A `Unit` that is itself where nothing has to be broadcast."""

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> dist.TorchDistribution:
        return self if tuple(batch_shape) == self.batch_shape else super().expand(batch_shape, _instance)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_factor if value.shape[:-1] == self.batch_shape else super().log_prob(value)


def _check_shape(name: str, value: Tensor, frames: Sequence[Any], summed: Collection[int] = ()) -> None:
    """Raise unless a value fits the plates around it; in the dimensions ``summed`` lie those of summed-out sites."""
    if value.dim() == 0:
        return
    plates = {frame.dim: frame for frame in frames if frame.dim is not None}
    depth = max((-dim for dim in plates), default=0)
    expected = tuple(plates[dim].size if dim in plates else 1 for dim in range(-depth, 0))
    sizes = [1 if i - value.dim() in summed else size for i, size in enumerate(value.shape)]
    while summed and len(sizes) > depth and sizes[0] == 1:
        sizes.pop(0)
    fits = len(sizes) <= depth and all(
        size in (1, wanted) for size, wanted in zip(sizes, expected[depth - len(sizes) :], strict=True)
    )
    if not fits:
        around = ", ".join(f"'{frame.name}' of size {frame.size}" for frame in plates.values()) or "none"
        raise InvalidProgram(
            f"Reward site '{name}' has shape {tuple(value.shape)}, and the plates around it ({around}) "
            f"take shape {expected}. Sum over what is no plate, or put the site inside its plate."
        )
