"""Private copies of a network: nothing done to one can be seen on the network of the caller."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from regrad.errors import UsageError


def private_copy(network: nn.Module) -> nn.Module:
    """``network`` in eval mode with parameters that share memory but need no gradient, and in-place layers off.

    Hooks, modes and buffers of the copy are its own, so nothing done to it can be seen on the caller's network.
    Its forward hooks come along, since they may be part of the function.
    """
    memo: dict[int, Any] = {
        id(value): nn.Parameter(value.detach(), requires_grad=False) for value in network.parameters()
    }
    try:
        clone = copy.deepcopy(network, memo)
    except Exception as error:
        raise UsageError(
            f"{type(network).__name__} cannot be copied (copy.deepcopy), which scoring needs so that your network "
            f"stays as it is: {error}"
        ) from error
    for module in clone.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    return clone.eval()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Run attention through its modules: the fused fast path skips the sub-modules that are to be watched."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
