"""A second device that needs no hardware: real numbers, kept on the host, behind tensors of another device.

As on a GPU, an operation refuses tensors of two devices, the device has a random generator of its own, and
reading a number holds the program up until the device is done: `Simulation.synchronisations` names those operations.

Import this before the first backward pass of a process, which counts the devices there are: ``conftest.py`` does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from packaging.version import Version
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten

NAME = "simulated"

_MOVES = {aten._to_copy.default, aten.copy_.default}
_INDEXES = {aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default}
_READS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default}
"""What the host must wait for: a value, or a size that depends on one."""


class _Module:
    """What ``torch.simulated`` is."""

    @staticmethod
    def is_available() -> bool:
        return Simulation.now is not None

    is_initialized = is_available

    @staticmethod
    def device_count() -> int:
        return int(Simulation.now is not None)

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return Simulation.now is None

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        if Simulation.now is not None:
            Simulation.now.generator = torch.Generator().manual_seed(seed).get_state()

    @staticmethod
    def get_rng_state(device: Any = None) -> Tensor:
        assert Simulation.now is not None
        return Simulation.now.generator

    @staticmethod
    def set_rng_state(state: Tensor, device: Any = None) -> None:
        assert Simulation.now is not None
        Simulation.now.generator = state

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16]


class DeviceTensor(Tensor):
    """A tensor of the simulated device; ``held`` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        new: DeviceTensor = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        new.held = held
        return new

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert Simulation.now is not None, "a tensor of the simulated device outlived it"
        return Simulation.now.run(func, args, kwargs or {})

    def numpy(self, *, force: bool = False) -> Any:
        return self._read("numpy").numpy(force=force)

    def tolist(self) -> Any:
        return self._read("tolist").tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._read("save").__reduce_ex__(protocol)  # as it is loaded again: on the host

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.held!r})"

    def _read(self, what: str) -> Tensor:
        assert Simulation.now is not None
        Simulation.now.synchronisations.append(what)
        return self.held


class Simulation(TorchDispatchMode):
    """While it is entered, ``device="simulated"`` works."""

    now: Simulation | None = None

    def __init__(self) -> None:
        super().__init__()
        self.synchronisations: list[str] = []
        self.generator = torch.get_rng_state()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        asked = kwargs.get("device")
        was_there = any(isinstance(x, DeviceTensor) for x in tensors)
        is_there = was_there if asked is None else torch.device(asked).type == NAME
        if not was_there and not is_there:
            return func(*args, **kwargs)
        if func in _READS or (func in _MOVES and was_there and not (is_there and _lies_there(args[0]))):
            self.synchronisations.append(str(func))
        if func in _INDEXES:
            tensors = tensors[:1]
            if any(index is not None and index.dtype == torch.bool for index in args[1]):
                self.synchronisations.append(str(func))
        if func not in _MOVES and was_there:
            _check_one_device(func, tensors)
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():
                func(*args, **kwargs)  # the shape that the outside sees
        args, kwargs = tree_map(_on_the_host, (args, kwargs))
        result = self._drawn(func, args, kwargs) if _is_random(func) else func(*args, **kwargs)
        if func._schema.is_mutable:
            theirs = {id(x.held): x for x in tensors if isinstance(x, DeviceTensor)}
            return tree_map(lambda x: theirs.get(id(x), x), result)
        return tree_map(lambda x: DeviceTensor(x) if isinstance(x, Tensor) else x, result) if is_there else result

    def _drawn(self, func: Any, args: Any, kwargs: Any) -> Any:
        host = torch.get_rng_state()
        torch.set_rng_state(self.generator)
        try:
            return func(*args, **kwargs)
        finally:
            self.generator = torch.get_rng_state()
            torch.set_rng_state(host)


def _lies_there(x: Any) -> bool:
    return isinstance(x, DeviceTensor)


def _on_the_host(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.held if isinstance(x, DeviceTensor) else x


def _is_random(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def _check_one_device(func: Any, tensors: list[Tensor]) -> None:
    """Raise as torch does: of another device there may be numbers, which are no tensor's destination."""
    strangers = [x for x in tensors if not isinstance(x, DeviceTensor)]
    are_numbers = all(x.dim() == 0 for x in strangers) and torch.Tag.pointwise in func.tags
    writes = func._schema.is_mutable and not isinstance(tensors[0], DeviceTensor)
    if strangers and (writes or not are_numbers):
        shapes = [tuple(x.shape) for x in strangers]
        raise RuntimeError(f"Expected all tensors to be on the same device: {func} found host tensors of {shapes}")


_HAS_IT = Version("2.13")
"""A torch that is known to register devices written in Python; 2.4 does not."""

_register = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
"""Private, so that another torch may be without it."""


def _why_not() -> str | None:
    """Why there is no simulated device here, or None if there is."""
    if torch.cuda.is_available():
        return "torch knows one accelerator at a time, and the GPU is tested in place of a simulated one"
    if _register is not None:
        return None
    if Version(torch.__version__) >= _HAS_IT:
        raise ImportError(
            f"torch {torch.__version__} has no _setup_privateuseone_for_python_backend, which {_HAS_IT} has: find what "
            "took its place, or no device is tested any more."
        )
    return f"torch {torch.__version__} cannot register a device that is written in Python; {_HAS_IT} can"


WHY_NOT = _why_not()
IS_POSSIBLE = WHY_NOT is None

if _register is not None and IS_POSSIBLE:
    _register(NAME, backend_module=_Module)


@contextmanager
def simulated_device() -> Iterator[Simulation]:
    """A simulated GPU."""
    Simulation.now = simulation = Simulation()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…) makes it on the host, then moves it where we see it
    try:
        with simulation:
            yield simulation
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        Simulation.now = None


class TorchOn:
    """``torch``, as a program sees it that puts what it makes on ``device``."""

    _FACTORIES = frozenset(
        ("tensor", "as_tensor", "zeros", "ones", "full", "eye", "arange", "randn", "rand", "linspace")
    )

    def __init__(self, device: torch.device | str):
        self._device = device

    def __getattr__(self, name: str) -> Any:
        found = getattr(torch, name)
        return partial(found, device=self._device) if name in self._FACTORIES else found


@contextmanager
def problems_on(device: torch.device | str) -> Iterator[None]:
    """The programs of `ppgrad.testing.problems` make their tensors there."""
    torch_there = TorchOn(device)
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("ppgrad.testing.problems") and hasattr(module, "torch"):
                stack.enter_context(mock.patch.object(module, "torch", torch_there))
        yield
