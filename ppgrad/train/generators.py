"""The global random generators as tensors and plain numbers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from ppgrad.core.generators import accelerator_state, set_accelerator_state


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
