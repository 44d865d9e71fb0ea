"""The programs of models/, which is no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

MODELS = Path(__file__).parents[1] / "models"


def load(name: str) -> ModuleType:
    """The module of a file in models/, by its name, always the same one."""
    full = f"benchmarks_models_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, MODELS / f"{name}.py")
        if spec is None or spec.loader is None:
            raise ImportError(f"models/{name}.py cannot be loaded")
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]
