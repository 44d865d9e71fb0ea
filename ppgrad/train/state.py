"""What a run's next step depends on, as tensors and plain numbers: the program's tensors, the random generators."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppgrad.core.generators import accelerator_state, set_accelerator_state
from ppgrad.engine.program.program import Program, reachable


def fixed_tensors(program: Program, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What modules of the program hold beside the parameters in training: buffers, frozen parameters."""
    seen = {id(leaf) for leaf in trained.values()}
    found: dict[str, Tensor] = {}
    for name, value in reachable(program):
        if isinstance(value, torch.nn.Module):
            for inner, leaf in (*value.named_parameters(), *value.named_buffers()):
                if id(leaf) not in seen:
                    seen.add(id(leaf))
                    found[f"{name}.{inner}" if name else inner] = leaf
    return found


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values, apart from any graph and from what they are part of."""
    return {name: leaf.detach().clone() for name, leaf in tensors.items()}


@torch.no_grad()
def put_back(tensors: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Give ``tensors``, in place, the values of ``saved``."""
    for name, leaf in tensors.items():
        leaf.copy_(saved[name])


def check_values(saved: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise unless the values of a checkpoint are of the kinds and shapes that the program needs.

    Args:
        saved: the content of the checkpoint.
        tensors: parameters, critics and buffers of the program, by kind and name.

    Raises:
        ValueError: names the first value that is not.
    """
    step, noise = saved["step"], saved["noise"]
    for name, count in {name: saved[name] for name in ("step", "timesteps", "since_calibration")}.items():
        if type(count) is not int or count < 0:
            raise ValueError(f"its {name} is {count!r}, and no number of steps")
    if type(saved["elapsed"]) is not float or not 0 <= saved["elapsed"] < math.inf:
        raise ValueError(f"its elapsed time is {saved['elapsed']!r}, and no number of seconds")
    if type(saved["vectorize"]) is not bool:
        raise ValueError(f"its vectorize is {saved['vectorize']!r}, and neither True nor False")
    for kind, leaves in tensors.items():
        for name, leaf in leaves.items():
            _check_tensor(f"{kind.removesuffix('s')} '{name}'", saved[kind][name], leaf.dtype, leaf.shape)
    for name, column in saved["metrics"].items():
        _check_tensor(f"metric '{name}' of {step} steps", column, torch.float64, (step,))
    if step and not saved["metrics"]:
        raise ValueError(f"it is of step {step} and has no metrics")
    if type(noise["count"]) is not int or noise["count"] < 0:
        raise ValueError(f"its noise is of {noise['count']!r} gradients")
    size = sum(leaf.numel() for leaf in tensors["parameters"].values()) if noise["count"] else 0
    for name in ("latest", "mean"):
        _check_tensor(f"noise's {name} gradient", noise[name], noise["latest"].dtype, (size,))


def _check_tensor(what: str, value: Any, dtype: torch.dtype, shape: Sequence[int]) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"its {what} is of type {type(value).__name__}, and no tensor")
    if value.dtype != dtype or value.shape != torch.Size(shape):
        raise ValueError(
            f"its {what} is {value.dtype} of shape {tuple(value.shape)}, and is to be {dtype} of shape {tuple(shape)}"
        )


def on_device(tree: Any, device: torch.device) -> Any:
    """A tree of containers with its tensors on ``device``."""
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)


def generators_state() -> dict[str, Any]:
    """The state of torch's, NumPy's and Python's generators, and of those of an accelerator in use."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "accelerator": accelerator_state(),
        "numpy": {
            "kind": str(kind),
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "python": {"version": version, "words": torch.tensor(words), "next_gauss": next_gauss},
    }


def restore_generators(state: dict[str, Any]) -> None:
    """Set the generators to what `generators_state` saw."""
    torch.set_rng_state(state["torch"])
    set_accelerator_state(state["accelerator"])
    numpy, python = state["numpy"], state["python"]
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    random.setstate((python["version"], tuple(python["words"].tolist()), python["next_gauss"]))
