"""Run a function once for each lane: under ``torch.func.vmap`` where it can, in a loop where not."""

from __future__ import annotations

import logging
import pickle
import random
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ppgrad.engine.running.batched_draws import draws_of_lanes

logger = logging.getLogger("ppgrad")

GRID_POINTS_AT_ONCE = 4096
"""How many grid points of one particle run together."""


class CannotVectorize(Exception):
    """The program does something that vmap would get silently wrong."""


_noted: set[tuple[int, str]] = set()


def note_of_loop(program: object, error: Exception) -> None:
    """Log, once for a program, why it runs in a loop and not under vmap, and where it says so."""
    reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
    library = tuple(str(Path(module.__file__).parent) for module in (torch, pyro, np) if module.__file__)
    library += (str(Path(__file__).parents[1]),)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(library)]
    where = (
        f"{Path(frames[-1].filename).name}:{frames[-1].lineno} `{(frames[-1].line or '')[:80]}`"
        if frames
        else "its code"
    )
    if (id(program), where) not in _noted:
        _noted.add((id(program), where))
        logger.warning("The program runs in a loop, not under vmap, because of %s (%s)", where, reason)


def vectorized(function: Callable[..., Any], *inputs: Any, lanes: int, at_once: int | None = None) -> Any:
    """``vmap`` of ``function(token, *inputs)``, each lane with randomness of its own.

    ``token`` is a zero that depends on the lane; `LaneTensors` needs it. ``at_once`` bounds how many lanes run
    together; None for all.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        warnings.filterwarnings("ignore", message="An output with one or more elements was resized")
        # A lane's own parameter requires no gradient that pyro.module could see; of the others the first run tells.
        warnings.filterwarnings("ignore", message=".* was not registered in the param store")
        mapped = torch.vmap(function, randomness="different", chunk_size=at_once)
        return mapped(torch.zeros(lanes), *inputs)


def in_every_lane(
    lane: Callable[..., Any],
    indices: dict[str, Tensor],
    uniforms: dict[str, Tensor],
    own: dict[str, Tensor],
    particles: int,
    points: int,
) -> Any:
    """``lane(token, index, noise, own)`` in every lane under ``vmap``: its tensors, ``(particles, points, …)``.

    Args:
        lane: a function of a zero that depends on the lane and of what is the lane's own.
        indices: of grid points, ``(points, …)``.
        uniforms: noise, ``(particles, …)``.
        own: further tensors, ``(particles, points, …)``.
        particles, points: how many there are.
    """

    def particle(token: Any, noise: dict[str, Tensor], own: dict[str, Tensor]) -> Any:
        if points == 1:
            return lane(token, _first(indices), noise, _first(own))
        return vectorized(
            lambda last, i, x: lane(token + last, i, noise, x), indices, own, lanes=points, at_once=GRID_POINTS_AT_ONCE
        )

    if particles == 1:
        tensors = tree_map(lambda x: x[None], particle(0.0, _first(uniforms), _first(own)))
    else:
        tensors = vectorized(particle, uniforms, own, lanes=particles)
    return tree_map(lambda x: x[:, None], tensors) if points == 1 else tensors


def _first(lanes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[0] for name, tensor in lanes.items()}


@contextmanager
def vectorizable() -> Iterator[None]:
    """What a program needs around it to run under vmap, and a check that it kept to torch's RNG.

    Raises:
        CannotVectorize: the program drew from NumPy's or Python's generator, once for all lanes.
    """
    numpy_state, python_state = _numpy_state(), random.getstate()
    with pyro.validation_enabled(False), draws_of_lanes():
        yield
    if _numpy_state() != numpy_state:
        raise CannotVectorize("it draws from NumPy's generator, which knows nothing of lanes")
    if random.getstate() != python_state:
        raise CannotVectorize("it draws from Python's generator, which knows nothing of lanes")


def _numpy_state() -> bytes:
    return pickle.dumps(np.random.get_state())


class LaneTensors(TorchFunctionMode):
    """Makes a program's tensors belong to their lane.

    Uninitialized tensors, which torch's distributions fill in place with random numbers, are made
    to depend on the lane, since vmap cannot fill one tensor differently for each lane. Parameters
    are replaced, wherever torch sees them, by the lane's own.

    Args:
        token: a zero that depends on the lane.
        replacements: the lane's tensor for the ``id`` of each parameter.
    """

    _uninitialized = frozenset((torch.Tensor.new, torch.Tensor.new_empty, torch.empty, torch.empty_like))

    def __init__(self, token: Tensor | float, replacements: Mapping[int, Tensor]):
        super().__init__()
        self._token = token
        self._tokens: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._replacements = replacements

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._replacements:
            args = [self._replace(arg) for arg in args]
            kwargs = {key: self._replace(value) for key, value in kwargs.items()}
        if func is torch.Tensor.__setitem__ and _is_filling(*args):
            return args[0].masked_fill_(args[1], args[2])  # vmap knows this, and not an index of unknown length
        result = func(*args, **kwargs)
        if func in self._uninitialized and isinstance(self._token, Tensor):
            return result + self._token_like(result)
        return result

    def _token_like(self, tensor: Tensor) -> Tensor:
        """The token in the dtype and on the device of a tensor; it is moved there once."""
        key = (tensor.dtype, tensor.device)
        if key not in self._tokens:
            self._tokens[key] = self._token.to(tensor)  # type: ignore[union-attr]
        return self._tokens[key]

    def _replace(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self._replacements.get(id(arg), arg)
        if isinstance(arg, list | tuple) and not isinstance(arg, torch.Size):
            replaced = [self._replace(item) for item in arg]
            return type(arg)(replaced) if type(arg) in (list, tuple) else arg
        return arg

    def own(self, tree: Any) -> Any:
        """``tree`` with its parameters replaced; for values that reach a site without a function of torch."""
        return tree_map(self._replace, tree)


def _is_filling(tensor: Any, index: Any, value: Any) -> bool:
    """Whether one number is written to the elements that a mask of the tensor's shape chooses."""
    if not isinstance(index, Tensor) or index.dtype != torch.bool or index.shape != tensor.shape:
        return False
    return isinstance(value, bool | int | float) or (isinstance(value, Tensor) and value.dim() == 0)
