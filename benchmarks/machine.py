"""What a time depends on besides the code."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

PACKAGES = ("ppgrad", "torch", "pyro-ppl", "numpy")


def facts() -> dict[str, str | int | float]:
    """Processor, cores, threads, load and versions."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "torch threads": torch.get_num_threads(),
        "load at the start": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def processor() -> str:
    """Its model, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
