"""What a network asks PyTorch to compute, seen one operation at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils.flop_counter import flop_registry


class Operations(TorchDispatchMode):
    """Sees each operation below autograd while it is open; whoever inherits says what it does with them.

    PyTorch would import its compiler at the first operation, to tell it to look away: one to two seconds of every
    start, for something that is not compiled.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def operations_are_seen() -> bool:
    """Whether a mode is open in this thread, ours or another: it sees nothing of what other threads do."""
    return _get_current_dispatch_mode() is not None or torch.overrides._get_current_function_mode() is not None


class Multiplications(Operations):
    """Counts those of matrix products, convolutions and attention, by PyTorch's own formulas: half of its flops.

    Attributes:
        total: so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result) / 2
        return result
