"""What was measured on, and when."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import torch

from regrad.benchmarks import render
from regrad.benchmarks.gpu.bench import Bench


def machine_found(bench: Bench) -> Iterator[dict[str, Any]]:
    """One piece: date, device, its memory, and versions."""
    device = torch.device(bench.device)
    found = render.machine(device) | {"python": platform.python_version()}
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        found |= {"memory_gb": round(memory / 1e9, 1), "cuda": torch.version.cuda}
    yield found
