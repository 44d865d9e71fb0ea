"""The words a program is written in: `policy`, `reward`, `cost`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.runtime import get_plates
from torch import Tensor

from ppgrad.core.errors import InvalidProgram


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
        infer: as for ``pyro.sample``; ``{"gradient": estimator}`` chooses the site's estimator, and
            ``{"active": mask}`` says that where ``mask`` is false nothing depends on the action.

    Returns:
        The action, of shape ``fn.shape()``.
    """
    return pyro.sample(name, fn, obs=obs, infer={**(infer or {}), "policy": True, "context": context})


def reward(name: str, value: Tensor | np.ndarray | float, *, time: int | None = None) -> None:
    """A reward site: the objective adds up its values.

    Under Pyro's own ELBOs it is a log factor, which makes control an inference problem.

    Args:
        name: the site.
        value: shaped like the plates around it, or broadcastable to them.
        time: the exponent of the discount; None counts the reward sites before this one.

    Raises:
        InvalidProgram: ``value`` does not broadcast to the plates around it.

    Source: Levine (2018), Reinforcement learning and control as probabilistic inference, eq. 3.
    """
    value = torch.as_tensor(value)
    if not value.is_floating_point():
        value = value.to(torch.get_default_dtype())
    _check_shape(name, value)
    factor = dist.Unit(value, has_rsample=True, validate_args=False)
    observed = value.new_empty(factor.shape())
    pyro.sample(name, factor, obs=observed, infer={"is_auxiliary": True, "reward": True, "time": time})


def cost(name: str, value: Tensor | np.ndarray | float, *, time: int | None = None) -> None:
    """A reward site of minus ``value``; see `reward`."""
    value = torch.as_tensor(value)
    reward(name, -(value.int() if value.dtype == torch.bool else value), time=time)


def _check_shape(name: str, value: Tensor) -> None:
    plates = {frame.dim: frame for frame in get_plates() if frame.dim is not None}
    depth = max((-dim for dim in plates), default=0)
    expected = tuple(plates[dim].size if dim in plates else 1 for dim in range(-depth, 0))
    fits = value.dim() <= depth and all(
        size in (1, expected[dim]) for dim, size in zip(range(-value.dim(), 0), value.shape, strict=True)
    )
    if not fits:
        around = ", ".join(f"'{frame.name}' of size {frame.size}" for frame in plates.values()) or "none"
        raise InvalidProgram(
            f"Reward site '{name}' has shape {tuple(value.shape)}, and the plates around it ({around}) "
            f"take shape {expected}. Sum over what is no plate, or put the site inside its plate."
        )
