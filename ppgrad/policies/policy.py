"""What every policy shares: features in, a distribution out, and numbers that are looked at."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, is_validation_enabled
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn

from ppgrad.core import InvalidInput, NonFinite


class Policy(nn.Module, ABC):
    """A module from features to a distribution over actions: ``policy(features)`` is a Pyro distribution.

    Features have shape ``(…, features)``; the distribution has the batch shape ``(…)``. What it
    computes from is looked at on every call, except under ``torch.func.vmap``, where nobody can.
    ``policy(features).entropy()`` always works: in closed form where `has_exact_entropy`, else as
    an estimate whose gradient is unbiased (or, for squashed actions, a quadrature).

    Args:
        features: how many features.
        actions: how many actions; for a discrete policy, how many to choose from.

    Raises:
        InvalidInput: features of another shape.
        NonFinite: a feature, a parameter or a layer's output is NaN, infinite or so large that its square
            is; names which one, where in the batch, and after which site of the program.
    """

    has_exact_entropy: ClassVar[bool] = True
    """Whether ``entropy()`` of the policy's distributions is in closed form."""

    features: int
    actions: int

    @abstractmethod
    def outputs(self, features: Tensor) -> tuple[Tensor, ...]:
        """The unconstrained numbers that `distribution` is made from."""

    @abstractmethod
    def distribution(self, *outputs: Tensor, validate_args: bool | None = None) -> TorchDistribution:
        """The distribution that `outputs` describe."""

    def forward(self, features: Any) -> TorchDistribution:
        """The distribution over actions, of batch shape ``(…)`` for features ``(…, features)``."""
        features = self._checked(features)
        outputs = self.outputs(features)
        checked = is_validation_enabled()  # else whoever turned it off looks at all steps at once
        finite = [has_density(output) if checked else None for output in outputs]
        if False in finite:
            raise NonFinite(self._explanation(features))
        unchecked = None in finite or not features.numel()  # torch cannot check an empty batch
        return self.distribution(*outputs, validate_args=False if unchecked else None)

    def _checked(self, features: Any) -> Tensor:
        weight = next(self.parameters())
        try:
            features = torch.as_tensor(features, device=weight.device)
        except (TypeError, ValueError, RuntimeError):
            raise InvalidInput(
                f"{type(self).__name__} takes a tensor of features, not {type(features).__name__}. Write one of shape "
                f"(…, {self.features})."
            ) from None
        if features.dim() < 1 or features.shape[-1] != self.features:
            name, shape = type(self).__name__, tuple(features.shape)
            flat = math.prod(shape[1:])
            mend = (
                f"Write policy(observation.flatten(1)) with {name}(features={flat}, …)"
                if len(shape) > 2
                else f"Write {name}(features={shape[-1] if shape else 1}, …), or stack the features along the last "
                "dimension"
            )
            raise InvalidInput(f"{name} takes features of shape (…, {self.features}), not {shape}. {mend}.")
        return features.to(weight.dtype)

    def _explanation(self, features: Tensor) -> str:
        name, place = type(self).__name__, _place()
        if is_finite(features) is False:
            return f"{name}: the features are {_first(features)}{place}. Keep observations finite."
        for parameter, value in self.named_parameters():
            if is_finite(value) is False:
                return (
                    f"{name}: parameter '{parameter}' is {_first(value)}{place}. "
                    "Lower the learning rate, clip the gradient, or go back to a checkpoint."
                )
        layers = self._layers(features)
        for fine, what in ((is_finite, ""), (has_density, ", whose square overflows")):
            for layer, output in layers:
                if fine(output) is False:
                    return (
                        f"{name}: layer '{layer}' returns {_first(output)}{what}{place}. "
                        "Normalize the observations, or lower the learning rate."
                    )
        return f"{name}: its output is not finite{place}. Lower the learning rate."

    def _layers(self, features: Tensor) -> list[tuple[str, Tensor]]:
        """Every layer's output, in the order of the forward pass."""
        seen: list[tuple[str, Tensor]] = []
        hooks = [
            module.register_forward_hook(lambda _, __, output, layer=layer: seen.append((layer, output)))
            for layer, module in self.named_modules()
            if not [*module.children()]
        ]
        try:
            with torch.no_grad():
                self.outputs(features)
        finally:
            for hook in hooks:
                hook.remove()
        return seen


def is_finite(tensor: Tensor) -> bool | None:
    """Whether all of ``tensor`` is finite; None under vmap, where nobody can look."""
    try:
        return bool(torch.isfinite(tensor.detach()).all())
    except RuntimeError:
        return None


def has_density(tensor: Tensor) -> bool | None:
    """Whether the squares of all of ``tensor`` are finite, as a density needs them; None under vmap."""
    try:
        return bool(_squares(tensor).all())
    except RuntimeError:
        return None


def _squares(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.abs() < torch.finfo(tensor.dtype).max ** 0.5


def _first(tensor: Tensor) -> str:
    """The first number that is not finite, or else whose square is not, and where it stands."""
    tensor = tensor.detach()
    fine = torch.isfinite(tensor)
    bad = (~(_squares(tensor) if bool(fine.all()) else fine)).nonzero()[0].tolist()
    return f"{float(tensor[tuple(bad)]):g} at index {tuple(bad)}"


def _place() -> str:
    """The latest site of the program that is being run, for a message."""
    for messenger in _PYRO_STACK:
        if isinstance(messenger, TraceMessenger):
            nodes = messenger.trace.nodes.values()
            sites = [n["name"] for n in nodes if n["type"] == "sample" and type(n["fn"]).__name__ != "_Subsample"]
            if sites:
                return f", after site '{sites[-1]}'"
    return ""
