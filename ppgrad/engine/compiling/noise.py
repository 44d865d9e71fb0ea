"""Noise drawn up front: each random operation of a program becomes a slice of one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ppgrad.core.errors import Unsupported
from ppgrad.core.generators import hand_out, hand_out_no_more

aten = torch.ops.aten


class Kind(NamedTuple):
    """One sort of noise: standard normal, or uniform on [0, 1)."""

    law: Literal["normal", "uniform"]
    dtype: torch.dtype
    device: torch.device

    def draw(self, count: int) -> Tensor:
        """``count`` independent numbers from torch's generator."""
        generate = torch.randn if self.law == "normal" else torch.rand
        return generate(count, dtype=self.dtype, device=self.device)


class UpFront(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Serves the random operations of torch from tensors of noise, in order.

    Operations that have no closed form in normal or uniform noise (gamma, Poisson and binomial variates) draw
    from torch's generator, as ever.

    Args:
        noise: for each kind, a long enough tensor of it.
    """

    def __init__(self, noise: Mapping[Kind, Tensor]):
        super().__init__()  # type: ignore[no-untyped-call]
        self._noise = noise
        self.used: dict[Kind, int] = dict.fromkeys(noise, 0)
        self._most = dict(self.used)
        self._native: list[str] = []

    def position(self) -> tuple[dict[Kind, int], int]:
        return dict(self.used), len(self._native)

    def go_back(self, position: tuple[dict[Kind, int], int]) -> None:
        used, native = position
        if native < len(self._native):
            raise Unsupported(
                f"The program would run again with the same noise, and that of {self._native[native]} cannot be drawn "
                "up front. Write compile=False."
            )
        self._most = self.counts()
        self.used = dict(used)

    def counts(self) -> dict[Kind, int]:
        """How many numbers of each kind were used."""
        return {kind: max(count, self._most[kind]) for kind, count in self.used.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        serve = _SERVED.get(func)
        if serve is not None:
            return serve(self, *args, **{key: value for key, value in kwargs.items() if key in ("dtype", "device")})
        if torch.Tag.nondeterministic_seeded in func.tags:
            return self.native(func, *args, **kwargs)
        return func(*args, **kwargs)

    def native(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """An operation that draws from torch's generator."""
        self._native.append(str(func.overloadpacket).removeprefix("aten."))
        return func(*args, **kwargs)

    def take(self, law: Literal["normal", "uniform"], shape: Any, dtype: Any, device: Any) -> Tensor:
        """The next numbers."""
        kind = Kind(law, dtype, torch.device(device))
        if kind not in self._noise:
            raise Unsupported(f"A program that draws {dtype} on {device} cannot be compiled. Write compile=False.")
        start, count = self.used[kind], math.prod(shape)
        self.used[kind] = start + count
        return self._noise[kind].narrow(0, start, count).view(list(shape))

    def like(self, law: Literal["normal", "uniform"], tensor: Tensor) -> Tensor:
        """The next numbers, as many as ``tensor`` has."""
        return self.take(law, tensor.shape, tensor.dtype, tensor.device)


@contextmanager
def drawing_up_front(noise: Mapping[Kind, Tensor]) -> Iterator[UpFront]:
    """Programs run inside draw from ``noise``."""
    mode = UpFront(noise)
    hand_out(mode)
    try:
        with mode:
            yield mode
    finally:
        hand_out_no_more()


def _new(law: Literal["normal", "uniform"]) -> Callable[..., Tensor]:
    def new(mode: UpFront, size: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
        return mode.take(law, size, dtype or torch.get_default_dtype(), device or "cpu")

    return new


def _new_like(law: Literal["normal", "uniform"]) -> Callable[..., Tensor]:
    def new_like(mode: UpFront, tensor: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
        return mode.take(law, tensor.shape, dtype or tensor.dtype, device or tensor.device)

    return new_like


def _filled(values: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The operation that fills a tensor in place with what ``values`` returns for it."""
    return lambda mode, tensor, *args, **kwargs: tensor.copy_(values(mode, tensor, *args, **kwargs))


def _normal(mode: UpFront, tensor: Tensor, mean: Any = 0.0, std: Any = 1.0, **_: Any) -> Tensor:
    return mean + std * mode.like("normal", tensor)


def _normal_of(mode: UpFront, mean: Any, std: Any = 1.0, **_: Any) -> Tensor:
    like = torch.as_tensor(mean + 0 * std)
    return mean + std * mode.like("normal", like)


def _normal_sized(
    mode: UpFront, mean: float, std: float, size: Any, *, dtype: Any = None, device: Any = None
) -> Tensor:
    return mean + std * mode.take("normal", size, dtype or torch.get_default_dtype(), device or "cpu")


def _uniform(mode: UpFront, tensor: Tensor, low: float = 0.0, high: float = 1.0, **_: Any) -> Tensor:
    return low + (high - low) * mode.like("uniform", tensor)


def _exponential(mode: UpFront, tensor: Tensor, rate: float = 1.0, **_: Any) -> Tensor:
    return -torch.log1p(-mode.like("uniform", tensor)) / rate


def _geometric(mode: UpFront, tensor: Tensor, probability: float, **_: Any) -> Tensor:
    return (torch.log1p(-mode.like("uniform", tensor)) / math.log1p(-probability)).ceil().clamp(min=1)


def _cauchy(mode: UpFront, tensor: Tensor, median: float = 0.0, sigma: float = 1.0, **_: Any) -> Tensor:
    return median + sigma * torch.tan(math.pi * (mode.like("uniform", tensor) - 0.5))


def _log_normal(mode: UpFront, tensor: Tensor, mean: float = 1.0, std: float = 2.0, **_: Any) -> Tensor:
    return torch.exp(mean + std * mode.like("normal", tensor))


def _bernoulli(mode: UpFront, tensor: Tensor, probability: Any = None, **_: Any) -> Tensor:
    p = tensor if probability is None else probability
    dtype = tensor.dtype if tensor.dtype.is_floating_point else torch.get_default_dtype()
    return (mode.take("uniform", tensor.shape, dtype, tensor.device) < p).to(tensor.dtype)


def _multinomial(mode: UpFront, weights: Tensor, count: int, replacement: bool = False, **_: Any) -> Tensor:
    """Each draw is won by the category whose exponential clock, of its weight as rate, rings first."""
    if count > 1 and not replacement:
        return mode.native(aten.multinomial.default, weights, count, replacement)
    shape = (*weights.shape[:-1], count, weights.shape[-1])
    clocks = -torch.log1p(-mode.take("uniform", shape, weights.dtype, weights.device))
    return (weights.unsqueeze(-2) / clocks.clamp(min=torch.finfo(weights.dtype).tiny)).argmax(-1)


def _integers(mode: UpFront, low: int, high: int, size: Any, *, dtype: Any = torch.int64, device: Any = None) -> Tensor:
    return (low + (high - low) * mode.take("uniform", size, torch.float64, device or "cpu")).floor().to(dtype)


_SERVED: dict[Any, Callable[..., Tensor]] = {
    aten.randn.default: _new("normal"),
    aten.rand.default: _new("uniform"),
    aten.randn_like.default: _new_like("normal"),
    aten.rand_like.default: _new_like("uniform"),
    aten.normal_.default: _filled(_normal),
    aten.normal.Tensor_Tensor: _normal_of,
    aten.normal.Tensor_float: _normal_of,
    aten.normal.float_Tensor: _normal_of,
    aten.normal.float_float: _normal_sized,
    aten.uniform_.default: _filled(_uniform),
    aten.exponential_.default: _filled(_exponential),
    aten.geometric_.default: _filled(_geometric),
    aten.cauchy_.default: _filled(_cauchy),
    aten.log_normal_.default: _filled(_log_normal),
    aten.bernoulli.default: _bernoulli,
    aten.bernoulli.p: _bernoulli,
    aten.bernoulli_.Tensor: _filled(_bernoulli),
    aten.bernoulli_.float: _filled(_bernoulli),
    aten.multinomial.default: _multinomial,
    aten.randint.low: _integers,
    aten.randint.default: lambda mode, high, size, **options: _integers(mode, 0, high, size, **options),
}
